"""``python -m qnb``: see `qnb.commands`."""

from qnb.commands import main

if __name__ == "__main__":
    raise SystemExit(main())

#!/usr/bin/env bash
# What the tests need from the system beside Python: Chromium, Node.js with npm, and the library that QNN's own is
# linked with. Installs it where it may (Debian, as root); else says how, and fails where CI is set.
set -euo pipefail

missing=()
command -v chromium > /dev/null || command -v google-chrome > /dev/null || missing+=(chromium)
command -v npm > /dev/null || missing+=(nodejs npm)
ldconfig -p 2> /dev/null | grep -q 'libatomic\.so\.1' || missing+=(libatomic1)
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -eq 0 ] && command -v apt-get > /dev/null; then
  echo "Installing ${missing[*]}"
  apt-get update -qq > /dev/null
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
  exit 0
fi
echo "Not here: ${missing[*]}. Install with your system's package manager, for instance: sudo apt install ${missing[*]}" >&2
[ -z "${CI:-}" ]

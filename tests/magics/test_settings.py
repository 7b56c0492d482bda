"""``%config QNN`` in a real shell. Oracle: `qnb.settings`, which the steps read."""

import pytest
from traitlets.config import Config

import qnb
from qnb.magics.settings import QNN, configured


@pytest.fixture(autouse=True)
def same_settings_afterwards():
    before = dict(vars(qnb.settings))
    yield
    for name, value in before.items():
        setattr(qnb.settings, name, value)


def test_config_writes_through_and_shows_what_holds(run, capsys):
    run('%config QNN.soc = "Snapdragon 8 Gen 2"')
    run('%config QNN.backend = "cpu"')
    run("%config QNN.timeout_s = 12")
    run("%config QNN.progress = False")
    assert (qnb.settings.soc, qnb.settings.backend, qnb.settings.timeout_s) == ("Snapdragon 8 Gen 2", "cpu", 12.0)
    assert qnb.settings.progress is False
    qnb.settings.soc = "SM8450"
    assert run("%config QNN.soc") == "SM8450"
    capsys.readouterr()
    run("%config QNN")
    text = capsys.readouterr().out
    assert "Current: 'SM8450'" in text
    assert "QNN" in (run("%config") or capsys.readouterr().out)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ('soc = "SM9999"', "unknown SoC"),
        ('backend = "cpx"', "did you mean cpu"),
        ("timeout_s = -1", "seconds"),
        ('progress = "yes"', "True or False"),
        ('runtime = "9.9.9"', "unknown runtime"),
    ],
)
def test_a_wrong_value_is_refused_and_the_old_one_stays(run, statement, said, caplog, capsys):
    before = dict(vars(qnb.settings))
    run(f"%config QNN.{statement}")
    assert said in caplog.text + capsys.readouterr().err
    assert dict(vars(qnb.settings)) == before
    run("%reload_ext qnb")  # IPython remembers the refused value; we must not
    assert dict(vars(qnb.settings)) == before


def test_ipythons_configuration_file_sets_defaults(caplog):
    made = configured(Config({"QNN": {"soc": "SM8550", "backend": "tpu", "nope": 1}}))
    assert isinstance(made, QNN)
    assert qnb.settings.soc == "SM8550"
    assert "unknown backend 'tpu'" in caplog.text
    assert "QNN.nope" in caplog.text

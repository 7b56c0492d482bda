"""``qnb check`` as a gate. Oracle: the exit codes that a build server looks at."""


def test_a_missed_threshold_ends_with_1_and_the_reason(qnb):
    qnb("export", "net.onnx", "--out", "gate-model", "--force")
    qnb("calibrate", "gate-model", "images.npy", "-o", "gate-quantized", "--force")
    words = ["check", "gate-quantized", "images.npy", "--no-layers"]
    passed = qnb(*words, "--min-sqnr", "5")
    assert passed.stdout.startswith(b"PASS")
    assert passed.stderr == b""
    failed = qnb(*words, "--min-sqnr", "300", "-o", "gate-failed", "--force", code=1)
    assert failed.stdout.startswith(b"FAIL")
    assert b"CheckFailed" in failed.stderr
    assert b"below min_sqnr 300" in failed.stderr
    assert b"next: " in failed.stderr
    assert b"saved: gate-failed" in failed.stderr  # what failed can be looked at
    assert qnb("load", "gate-failed").stdout.startswith(b"FAIL")


def test_a_top1_drop_is_judged_too(qnb):
    qnb("export", "net.onnx", "--out", "gate-model", "--force")
    qnb("calibrate", "gate-model", "images.npy", "-o", "gate-quantized", "--force")
    words = ["check", "gate-quantized", "images.npy", "--labels", "labels.npy", "--no-layers"]
    qnb(*words, "--max-top1-drop", "100")
    failed = qnb(*words, "--max-top1-drop", "-101", code=1)
    assert b"above max_top1_drop -101" in failed.stderr


def test_without_a_threshold_nothing_is_judged(qnb):
    qnb("export", "net.onnx", "--out", "gate-model", "--force")
    qnb("calibrate", "gate-model", "images.npy", "-o", "gate-quantized", "--force")
    shown = qnb("check", "gate-quantized", "images.npy", "--layer-samples", "2").stdout
    assert b"PASS" not in shown
    assert b"accumulated_sqnr_db" in shown
    assert b"\nfindings\n" in shown


def test_a_choice_that_nothing_fits_ends_with_1(qnb):
    qnb("export", "net.onnx", "--out", "gate-model", "--force")
    qnb("calibrate", "gate-model", "images.npy", "-o", "gate-quantized", "--force")
    words = ["select", "gate-quantized", "--constraint", "power_critical", "--soc", "SM8650", "--data", "images.npy"]
    chosen = qnb(*words, "--min-sqnr", "5", "-o", "gate-choice", "--force")
    assert b"take htp w8a8 on SM8650" in chosen.stdout
    assert qnb("load", "gate-choice").stdout == chosen.stdout
    none = qnb(*words, "--memory-mb", "0.0001", code=1)
    assert b"none fits; the nearest is" in none.stdout
    assert b"CheckFailed" in none.stderr
    assert b"power_critical" in qnb("select", "gate-quantized", "--constraint", "pwer_critical", code=2).stderr


def test_two_saved_profiles_are_compared_op_by_op(qnb):
    qnb("export", "net.onnx", "--out", "gate-model", "--force")
    qnb("profile", "gate-model", "--backends", "htp", "--runs", "1", "-o", "gate-before", "--force")
    shown = qnb("compare", "gate-before", "gate-before").stdout.decode()
    assert "op by op" in shown
    assert "cycles_delta" in shown

"""Options, and what they become in the runtime's words.

Oracle: the runtime itself, which refuses an option that it does not know; Qualcomm's documented names.
"""

from __future__ import annotations

from typing import Any

import pytest

import qnb
from qnb.errors import BadConfig, UnknownName
from qnb.runtime import client
from qnb.runtime.locate import find_runtime
from qnb.runtime.options import PERFORMANCE_MODES, BackendOptions, configured, session_spec
from tests.conftest import Digits

SM8650 = qnb.socs.find("SM8650")


def test_all_that_is_set_is_said() -> None:
    options = BackendOptions(
        soc=SM8650,
        fp16=True,
        performance_mode="burst",
        vtcm_mb=4,
        optimization=3,
        device_id=0,
        rpc_control_latency_us=100,
    )
    said = options.provider_options(find_runtime(), "htp")
    assert said.pop("backend_path").endswith(("libQnnHtp.so", "QnnHtp.dll"))
    assert said == {
        "offload_graph_io_quantization": "0",
        "soc_model": "57",
        "enable_htp_fp16_precision": "1",
        "htp_performance_mode": "burst",
        "vtcm_mb": "4",
        "htp_graph_finalization_optimization_mode": "3",
        "rpc_control_latency": "100",
        "device_id": "0",
    }


def test_what_is_not_set_is_left_to_the_runtime() -> None:
    said = BackendOptions().provider_options(find_runtime(), "cpu")
    assert set(said) == {"backend_path", "offload_graph_io_quantization"}
    assert session_spec("m.onnx", "ort", find_runtime(), BackendOptions(vtcm_mb=4)).provider_options == {}


@pytest.mark.parametrize("mode", [*PERFORMANCE_MODES, "brust"])
def test_the_runtime_knows_every_performance_mode(mode: str, digits: Digits) -> None:
    """One that it does not know it passes over with a warning; hence our own check."""
    extra = {"htp_performance_mode": mode}
    spec = session_spec(
        str(digits.quantized.path), "htp", find_runtime(), BackendOptions(soc=SM8650), extra=extra, verbose=True
    )
    log = client.call("load", {"spec": spec.plain()}).log
    assert f"Htp performance mode: {mode}" in log
    assert ("performance mode not valid" in log) == (mode == "brust")


@pytest.mark.parametrize(
    ("config", "changed"),
    [
        (
            {"htp_config": {"device_id": 0, "performance_mode": "burst", "vtcm_mb": 4, "enable_dma": True}},
            {"vtcm_mb": 4},
        ),
        ({"htp_config": {"precision_mode": "fp16"}}, {"fp16": True}),
        ({"htp_config": {"precision_mode": "int8"}}, {"fp16": False}),
        ({"graphs": [{"graph_names": ["g"], "O": 3, "vtcm_mb": 2, "fp16_relaxed_precision": 1}]}, {"optimization": 3}),
        (
            {"devices": [{"soc_model": 43, "cores": [{"core_id": 0, "perf_profile": "balanced"}]}]},
            {"performance_mode": "balanced"},
        ),
        ({"devices": [{"cores": [{"rpc_control_latency": 200}]}]}, {"rpc_control_latency_us": 200}),
        ({"gpu_config": {"device_id": 0}}, {"device_id": None}),
        ({}, {}),
    ],
)
def test_configurations_set_what_they_say(config: dict[str, Any], changed: dict[str, Any]) -> None:
    options = configured(BackendOptions(soc=SM8650), config, "htp")
    assert {name: getattr(options, name) for name in changed} == changed
    for other in ("cpu", "gpu"):
        if "gpu_config" not in config:
            assert configured(BackendOptions(), config, other) == BackendOptions()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"htp_config": {"performance_mode": "brust"}}, "performance mode 'brust'"),
        ({"htp_config": {"precision_mode": "int3"}}, "precision_mode 'int3'"),
        ({"devices": [{"soc_model": "SM8651"}]}, "SoC 'SM8651'"),
    ],
)
def test_unknown_words_in_a_configuration(config: dict[str, Any], says: str) -> None:
    with pytest.raises(UnknownName, match=says) as caught:
        configured(BackendOptions(), config, "htp")
    assert caught.value.hint


@pytest.mark.parametrize("vtcm_mb", [0, -1, 9, 1000])
def test_more_memory_than_the_part_has_is_refused(vtcm_mb: int) -> None:
    """The compiler takes it in silence."""
    with pytest.raises(BadConfig, match=f"vtcm_mb is {vtcm_mb}"):
        BackendOptions(soc=SM8650, vtcm_mb=vtcm_mb)
    assert BackendOptions(soc=SM8650, vtcm_mb=8).vtcm_mb == 8


def test_a_session_is_named_by_all_that_makes_it(digits: Digits) -> None:
    """Two builds in one worker never share a session, and the same one is not loaded twice."""
    runtime = find_runtime()
    specs = [
        session_spec(str(digits.quantized.path), "htp", runtime, BackendOptions(soc=qnb.socs.find(soc)))
        for soc in ("SM8650", "SM8350")
    ]
    with client.fresh() as worker:
        loads = [worker.call("load", {"spec": s.plain()}).values["cached"] for s in (*specs, *specs, specs[0])]
    assert loads == [False, False, True, True, True]

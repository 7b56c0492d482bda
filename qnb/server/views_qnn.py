"""QNN's files as view documents: DLC, context binary, graph JSON, encoding files.

Only what is documented or plain in them is said; the layouts of Qualcomm's own formats are not guessed at. Runs in a
worker. Knows nothing of results but their ``result.json``.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qnb import keyvalues, views
from qnb.errors import ArtifactError, BadConfig
from qnb.files import is_intact
from qnb.quant import encoding_files
from qnb.quant.overrides import Override

_MAX_MEMBERS = 1000
_MAX_METADATA = 1 << 20
# Qnn_DataType_t of the public API reference
_KIND_OF_TYPE = {0x0: "int", 0x1: "uint", 0x2: "float", 0x3: "sfixed", 0x4: "ufixed", 0x5: "bool"}


# --- DLC ----------------------------------------------------------------------------------------------------------


def view_dlc(path: Path) -> dict[str, Any]:
    """List the members of a DLC, and show the graph where `qnb.convert` wrote it as JSON beside.

    Raises
    ------
    ArtifactError
        If it is not an archive as DLCs are, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            size = path.stat().st_size
            if any(info.header_offset + info.compress_size > size for info in infos):
                raise zipfile.BadZipFile("a member lies outside of the file")
            metadata = next((i for i in infos if i.filename.startswith("dlc.metadata")), None)
            about = _metadata(_stored(path, metadata)) if metadata else []
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError) as error:
        raise ArtifactError(
            f"{path.name} is no DLC, or is damaged: {error}", hint="copy it again, or make it with qnb.convert"
        ) from error
    rows = [[i.filename, i.file_size, i.compress_size != i.file_size] for i in infos[:_MAX_MEMBERS]]
    beside = path.with_suffix(".json")
    graph, notes = None, ["the graph inside is in Qualcomm's own format, which qnb does not read"]
    tables = [views.Table("members", ["member", "bytes", "compressed"], rows, len(infos))]
    if beside.is_file() and beside.stat().st_size <= path.stat().st_size * 10 + (16 << 20):
        try:
            content = json.loads(beside.read_bytes())
            if _is_graph(content):
                graph = _qnn_graph(content, path.stem)
                tables += _graph_tables(content)
                notes = [f"the graph is that of {beside.name} beside it, which was written with it"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass  # it is of somebody else
    return views.document(
        "dlc", f"{path.name}: {len(infos)} members", notes=notes, facts=about, tables=tables, graph=graph
    )


def _stored(path: Path, info: zipfile.ZipInfo) -> bytes:
    """Read a member that is stored as it is; QNN leaves its checksum at zero, which `zipfile` takes for damage."""
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > _MAX_METADATA:
        return b""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        head = file.read(30)
        if head[:4] != b"PK\x03\x04":
            raise zipfile.BadZipFile("a member's header is damaged")
        file.seek(int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little"), 1)
        return file.read(info.file_size)


def _metadata(text: bytes) -> list[tuple[str, Any]]:
    """Flatten the plain JSON that a DLC says about itself."""
    if not text:
        return []
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("its metadata is damaged") from error
    return list(_flat(content, ""))[:100]


def _flat(content: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(content, Mapping) and {"major", "minor", "patch"} <= content.keys():
        yield name, ".".join(str(content[part]) for part in ("major", "minor", "patch"))
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _flat(value, f"{name} {key}".strip())
    elif content not in ("", None, []):
        yield name, content if isinstance(content, str | int | float) else json.dumps(content)[:1000]


# --- context binaries ---------------------------------------------------------------------------------------------


def view_binary(path: Path) -> dict[str, Any]:
    """Say what is known of a context binary: all if qnb made it, else what its ONNX wrapper says, if there is one."""
    saved = _saved_context(path)
    if saved is not None:
        return saved
    facts: list[tuple[str, Any]] = []
    tables: list[views.Table] = []
    wrapper = _wrapper_of(path)
    if wrapper is None:
        notes = [
            "nothing beside it says what is in it: no saved result of qnb, no ONNX wrapper that names it",
            "its layout is Qualcomm's own, which qnb does not read; the QAIRT SDK's qnn-context-binary-utility writes it "
            "out as JSON",
        ]
    else:
        from qnb.server.views_onnx import view_onnx

        seen = view_onnx(wrapper)
        facts = [("ONNX wrapper", wrapper.name), *(tuple(f) for f in seen.get("facts", []))]
        tables = [
            views.Table(t["title"], t["columns"], t["rows"])
            for t in seen["tables"]
            if t["title"] == "inputs and outputs"
        ]
        notes = [f"from {wrapper.name} beside it, which names it; the binary itself is in Qualcomm's own format"]
    return views.document("context binary", path.name, notes=notes, facts=facts, tables=tables)


def _saved_context(path: Path) -> dict[str, Any] | None:
    """Give the document of the saved result that the binary belongs to, if its digest is the one there."""
    folder = path.parent.parent if path.parent.name == "files" else path.parent
    if not (folder / "result.json").is_file():
        return None
    from qnb.results import load

    result = load(folder)
    if getattr(result, "digest", None) is None or not is_intact(path, result.digest):  # type: ignore[attr-defined]
        return None
    return result.report()


def _wrapper_of(path: Path) -> Path | None:
    """Find the ONNX file beside it that names it."""
    import onnx
    from google.protobuf.message import DecodeError

    for candidate in sorted(path.parent.glob("*.onnx"))[:20]:
        if not candidate.is_file() or candidate.stat().st_size > _MAX_METADATA:  # a wrapper holds no weights
            continue
        try:
            graph = onnx.load(str(candidate), load_external_data=False).graph
        except (DecodeError, ValueError, OSError):
            continue
        named = {
            a.s
            for node in graph.node
            if node.op_type == "EPContext"
            for a in node.attribute
            if a.name == "ep_cache_context"
        }
        if path.name.encode() in named:
            return candidate
    return None


# --- JSON: graphs and encodings -----------------------------------------------------------------------------------


def view_json(path: Path) -> dict[str, Any]:
    """Read a QNN graph that `qnb.convert` wrote, or an encoding file of any version.

    Raises
    ------
    ArtifactError
        If it is neither.
    """
    try:
        content = keyvalues.read(path.read_text(encoding="utf-8"), path.name)
    except (BadConfig, ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{path.name} can't be read: {getattr(error, 'what', error)}", hint="copy it again"
        ) from error
    try:
        if _is_graph(content):
            graph = _qnn_graph(content, path.stem)
            tables = _graph_tables(content)
            facts = [(key, value) for key, value in content.items() if isinstance(value, str) and value]
            title = f"{path.name}: {len(content['graph']['nodes']):,} QNN ops"
            return views.document("qnn graph", title, facts=facts, tables=tables, graph=graph)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ArtifactError(
            f"{path.name} is damaged: {type(error).__name__}: {error}", hint="make it again with qnb.convert"
        ) from error
    return _encodings(path, content)


def _is_graph(content: Any) -> bool:
    graph = content.get("graph") if isinstance(content, Mapping) else None
    return isinstance(graph, Mapping) and {"nodes", "tensors"} <= graph.keys()


def _qnn_graph(content: Mapping[str, Any], name: str) -> views.Graph:
    nodes, tensors = content["graph"]["nodes"], content["graph"]["tensors"]
    constants = {tensor for tensor, entry in tensors.items() if "params_count" in entry}
    about = {
        op: views.Node(
            op, str(node["type"]), None, {}, {"package": node.get("package"), **node.get("scalar_params", {})}
        )
        for op, node in nodes.items()
    }
    rows = [
        (
            op,
            str(node["type"]),
            [t for t in node["input_names"] if t not in constants],
            node["output_names"],
            [_tensor_type(tensors.get(t)) for t in node["output_names"]],
        )
        for op, node in nodes.items()
    ]
    return views.graph_of(name, rows, about)


def _graph_tables(content: Mapping[str, Any]) -> list[views.Table]:
    nodes, tensors = content["graph"]["nodes"], content["graph"]["tensors"]
    ops = [[op, n["type"], ", ".join(n["input_names"]), ", ".join(n["output_names"])] for op, n in nodes.items()]
    stored = [
        [name, _tensor_type(entry), "yes" if "params_count" in entry else "no"] for name, entry in tensors.items()
    ]
    return [
        views.Table("QNN ops", ["qnn_op", "qnn_type", "inputs", "outputs"], ops),
        views.Table("tensors", ["tensor", "type", "constant"], stored),
    ]


def _tensor_type(entry: Mapping[str, Any] | None) -> str:
    if not entry:
        return ""
    return f"{'x'.join(map(str, entry['dims'])) or 'scalar'} {_type_name(entry['data_type'])}"


def _type_name(number: Any) -> str:
    """Name a ``Qnn_DataType_t``: its kind is in the high byte, its width in the low one, written as if in hexadecimal."""
    if not isinstance(number, int) or (number >> 8) not in _KIND_OF_TYPE:
        return f"type {number}"
    kind = _KIND_OF_TYPE[number >> 8]
    return "bool" if kind == "bool" else f"{kind}{number & 0xFF:x}"


# --- encodings ----------------------------------------------------------------------------------------------------

_ENCODING_COLUMNS = ["tensor", "kind", "bits", "symmetric", "channels", "scale", "offset", "min", "max"]


def _encodings(path: Path, content: Any) -> dict[str, Any]:
    import warnings

    if not isinstance(content, Mapping) or not content.keys() & {
        "encodings",
        "activation_encodings",
        "param_encodings",
    }:
        raise ArtifactError(
            f"{path.name} is neither an encoding file nor a QNN graph", hint="open it as plain JSON instead"
        )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            found = encoding_files.read(content)
        except BadConfig as error:
            raise ArtifactError(f"{path.name}: {error.what}", hint=error.hint) from error
    rows = [_row(name, override) for name, override in found.tensors.items()]
    facts = [
        ("version", content.get("version", "flat, or not said")),
        ("tensors", len(rows)),
        *(
            (key, content[key])
            for key in ("activation_bitwidth", "param_bitwidth", "bias_bitwidth", "producer")
            if key in content
        ),
    ]
    return views.document(
        "encodings",
        f"{path.name}: encodings of {len(rows):,} tensors",
        notes=[str(warning.message) for warning in said[:100]],
        facts=facts,
        tables=[views.Table("encodings", _ENCODING_COLUMNS, rows)],
        charts=[views.Chart("largest value by tensor", "bars", "encodings", "tensor", "max")],
    )


def _row(name: str, override: Override) -> list[Any]:
    low, high, scale, offset = _ends(override)
    symmetric = override.signed if override.signed is not None else None
    bits = "float" if override.keep_float else override.bits
    return [name, override.kind, bits, symmetric, override.channels, scale, offset, low, high]


def _ends(override: Override) -> tuple[Any, Any, Any, Any]:
    """Give smallest and largest real value, and scale and offset of one grid, or the span of those of several."""
    scale, zero = override.scale, override.zero_point
    offset = None if zero is None else -zero
    low = None if override.low is None else float(override.low.min())
    high = None if override.high is None else float(override.high.max())
    if scale is not None and zero is not None and override.bits and scale.shape == zero.shape:
        first = -(1 << (override.bits - 1)) if override.signed else 0
        last = first + (1 << override.bits) - 1
        low = float(((first - zero) * scale).min()) if low is None else low
        high = float(((last - zero) * scale).max()) if high is None else high
    return low, high, _span(scale), _span(offset)


def _span(values: Any) -> Any:
    if values is None:
        return None
    least, most = values.min().item(), values.max().item()
    return least if least == most or math.isnan(least) else f"{least:.6g} … {most:.6g}"

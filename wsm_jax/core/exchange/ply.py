"""Strict PLY reader (ascii and binary of both byte orders; scalar columns and vertex index lists) and binary writer.

Sizes in a header are checked against the size of the file before memory is allocated. Files are written little-endian.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from wsm_jax.files import atomic
from wsm_jax.typing import Int, Shaped

TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4", "double": "f8",
    "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8",
}  # fmt: skip
"""Type name in a header -> NumPy type without byte order."""

_NAMES = {"i1": "char", "u1": "uchar", "i2": "short", "u2": "ushort", "i4": "int", "u4": "uint", "f4": "float", "f8": "double"}
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_HEADER_LIMIT = 65536


@dataclasses.dataclass
class Element:
    """One element of a header: its name, rows, and properties name -> (type, type of the list's length or None)."""

    name: str
    count: int
    properties: dict[str, tuple[str, str | None]]


@dataclasses.dataclass
class Ply:
    """Content of a PLY file: the scalar columns of "vertex", and the faces as triangles (none: shape [0 3])."""

    vertex: Mapping[str, Shaped[np.ndarray, " n"]]
    faces: Int[np.ndarray, "F 3"]


def read(path: str | Path) -> Ply:
    """Read a PLY file; polygons become fans of triangles.

    Raises FileNotFoundError, or ValueError with the path for a bad header, a truncated file, text that is not a number, extra
    bytes, a face index out of range, or a vertex that is not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such PLY file")
    data = path.read_bytes()
    form, elements, start = _header(data, path)
    columns: dict[str, dict[str, np.ndarray]] = {}
    lists: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    if form == "ascii":
        tokens = data[start:].split()
        position = 0
        for element in elements:
            columns[element.name], found, position = _ascii_element(tokens, position, element, path)
            lists |= found
        left = len(tokens) - position
    else:
        for element in elements:
            columns[element.name], found, start = _binary_element(data, start, element, _ORDERS[form], path)
            lists |= found
        left = len(data) - start
    if left:
        raise ValueError(f"{path}: {left} {'numbers' if form == 'ascii' else 'bytes'} after the last element; needed none")
    vertex = columns.get("vertex", {})
    if not {"x", "y", "z"} <= set(vertex):
        raise ValueError(f"{path}: no vertices with x, y and z; got the elements {[e.name for e in elements]}")
    for name, values in vertex.items():
        if not np.isfinite(values).all():
            raise ValueError(f"{path}: vertex property {name!r} holds a value that is not finite")
    faces = _triangles(*lists.get("face", (np.zeros(0, np.int64), np.zeros(0, np.int64))))
    if faces.size and (faces.min() < 0 or faces.max() >= len(vertex["x"])):
        raise ValueError(f"{path}: a face names vertex {faces.max()}; the file has {len(vertex['x'])}, counted from 0")
    return Ply(vertex, faces)


def _header(data: bytes, path: Path) -> tuple[str, list[Element], int]:
    """Format of the body, elements, and the offset of the body."""
    end = data.find(b"end_header", 0, _HEADER_LIMIT)
    line = data.find(b"\n", end) if end >= 0 else -1
    if not data.startswith(b"ply") or line < 0 or data[end + 10 : line].strip():
        raise ValueError(f'{path}: no PLY header; needed "ply" ... "end_header" in the first {_HEADER_LIMIT} bytes')
    form, elements = "", []
    for text in data[:end].decode("latin-1").splitlines()[1:]:
        words = text.split()
        match words:
            case [] | ["comment" | "obj_info", *_]:
                pass
            case ["format", name, "1.0"] if name in _ORDERS and not form:
                form = name
            case ["element", name, count] if count.isdecimal() and len(count) < 16 and name not in {e.name for e in elements}:
                elements.append(Element(name, int(count), {}))
            case ["property", "list", length, kind, name] if _known(elements, name, kind, length):
                elements[-1].properties[name] = (TYPES[kind], TYPES[length])
            case ["property", kind, name] if _known(elements, name, kind):
                elements[-1].properties[name] = (TYPES[kind], None)
            case _:
                raise ValueError(f"{path}: the header line {text[:80]!r} is invalid or a duplicate")
    if not form:
        raise ValueError(f"{path}: the header names no format; needed one of {list(_ORDERS)}, version 1.0")
    for element in elements:
        if element.count and not element.properties:
            raise ValueError(f"{path}: {element.count} rows of {element.name!r} without a property")
    return form, elements, line + 1


def _known(elements: list[Element], name: str, kind: str, length: str = "uchar") -> bool:
    """True if a property belongs to an element, is not a duplicate, and has valid types."""
    return bool(elements) and name not in elements[-1].properties and kind in TYPES and TYPES.get(length, "f")[0] in "iu"


def _short(path: Path, element: Element) -> ValueError:
    return ValueError(f"{path}: the header promises {element.count} rows of {element.name!r}; the file ends before them")


def _binary_element(data: bytes, start: int, element: Element, order: str, path: Path) -> tuple[dict, dict, int]:
    """Columns, lists and end offset of one element of a binary body."""
    scalars = [(name, order + kind) for name, (kind, length) in element.properties.items() if length is None]
    if len(scalars) == len(element.properties):
        dtype = np.dtype(scalars)
        end = start + element.count * dtype.itemsize
        if end > len(data):
            raise _short(path, element)
        rows = np.frombuffer(data, dtype, element.count, start) if element.count else np.zeros(0, dtype)
        return {name: rows[name].astype(dtype[name].newbyteorder("=")) for name, _ in scalars}, {}, end
    dtypes = {
        name: (np.dtype(order + kind), np.dtype(order + length) if length else None)
        for name, (kind, length) in element.properties.items()
    }
    least = sum(length.itemsize if length else kind.itemsize for kind, length in dtypes.values())
    if start + element.count * least > len(data):
        raise _short(path, element)
    even = _even_rows(data, start, element, dtypes)
    return even if even is not None else _uneven_rows(data, start, element, dtypes, path)


def _is_face_list(element: Element, name: str) -> bool:
    return element.name == "face" and name in ("vertex_indices", "vertex_index")


def _even_rows(data: bytes, start: int, element: Element, dtypes: dict) -> tuple[dict, dict, int] | None:
    """The whole element at once if all rows have lists of the same lengths as the first row; else None."""
    fields, at = [], start
    for name, (kind, length) in dtypes.items():
        size = 1
        if length:
            if at + length.itemsize > len(data):
                return None
            size = int(np.frombuffer(data, length, 1, at)[0])
            fields.append((name + " length", length))
            at += length.itemsize
        if size < 0 or at + size * kind.itemsize > len(data):
            return None
        fields.append((name, kind, (size,)))
        at += size * kind.itemsize
    dtype = np.dtype(fields)
    end = start + element.count * dtype.itemsize
    if not element.count or end > len(data):
        return None
    rows = np.frombuffer(data, dtype, element.count, start)
    if any(length and np.any(rows[name + " length"] != rows[name].shape[1]) for name, (_, length) in dtypes.items()):
        return None
    lists = {}
    for name in element.properties:
        if _is_face_list(element, name):
            lists["face"] = (np.full(element.count, rows[name].shape[1]), rows[name].reshape(-1).astype(np.int64))
    return {}, lists, end


def _uneven_rows(data: bytes, start: int, element: Element, dtypes: dict, path: Path) -> tuple[dict, dict, int]:
    lengths, values, at = [], [], start
    for _ in range(element.count):
        for name, (kind, length) in dtypes.items():
            size = 1
            if length:
                if at + length.itemsize > len(data):
                    raise _short(path, element)
                size = int(np.frombuffer(data, length, 1, at)[0])
                at += length.itemsize
            end = at + size * kind.itemsize
            if size < 0 or end > len(data):
                raise _short(path, element)
            if _is_face_list(element, name):
                lengths.append(size)
                values.append(np.frombuffer(data, kind, size, at).astype(np.int64))
            at = end
    flat = np.concatenate(values) if values else np.zeros(0, np.int64)
    return {}, ({"face": (np.asarray(lengths, np.int64), flat)} if lengths else {}), at


def _ascii_element(tokens: list[bytes], position: int, element: Element, path: Path) -> tuple[dict, dict, int]:
    """Columns, lists and end of one element of an ascii body."""
    if position + element.count * len(element.properties) > len(tokens):
        raise _short(path, element)
    if all(length is None for _, length in element.properties.values()):
        width = len(element.properties)
        end = position + element.count * width
        rows = _numbers(tokens[position:end], path).reshape(element.count, width)
        return {name: rows[:, i] for i, name in enumerate(element.properties)}, {}, end
    lengths, values = [], []
    for _ in range(element.count):
        for name, (_, length) in element.properties.items():
            size = 1
            if length:
                size = int(_numbers(tokens[position : position + 1], path)[0]) if position < len(tokens) else -1
                position += 1
            if size < 0 or position + size > len(tokens):
                raise _short(path, element)
            if _is_face_list(element, name):
                lengths.append(size)
                values.extend(tokens[position : position + size])
            position += size
    faces = {"face": (np.asarray(lengths, np.int64), _numbers(values, path).astype(np.int64))} if lengths else {}
    return {}, faces, position


def _numbers(tokens: list[bytes], path: Path) -> np.ndarray:
    try:
        values = np.array([float(token) for token in tokens], np.float64)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; needed numbers after the header") from error
    if not np.isfinite(values).all():
        raise ValueError(f"{path}: a value that is not finite; needed numbers after the header")
    return values


def _triangles(lengths: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Polygons as fans of triangles; polygons with fewer than three corners are dropped."""
    starts = np.cumsum(lengths) - lengths
    pieces = np.maximum(lengths - 2, 0)
    polygon = np.repeat(np.arange(len(lengths)), pieces)
    step = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    first = starts[polygon]
    return np.stack([values[first], values[first + step + 1], values[first + step + 2]], -1).astype(np.int64)


def write(
    path: str | Path, vertex: Mapping[str, Shaped[np.ndarray, " n"]], faces: Int[np.ndarray, "F 3"] | None = None
) -> None:
    """Write columns of equal length, in order, and triangles, if any; atomic. Column types are kept."""
    dtype = np.dtype([(name, "<" + values.dtype.str[1:]) for name, values in vertex.items()])
    rows = np.empty(len(next(iter(vertex.values()))), dtype)
    for name, values in vertex.items():
        rows[name] = values
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    head += [f"property {_NAMES[dtype[name].str[1:]]} {name}" for name in vertex]
    body = rows.tobytes()
    if faces is not None:
        head += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
        triangles = np.empty(len(faces), [("length", "u1"), ("index", "<i4", 3)])
        triangles["length"], triangles["index"] = 3, faces
        body += triangles.tobytes()
    with atomic(path) as part:
        part.write_bytes("\n".join([*head, "end_header\n"]).encode("ascii") + body)

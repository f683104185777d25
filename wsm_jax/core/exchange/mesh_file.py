"""Meshes in OBJ, STL and glTF files, read and written by trimesh; glTF headers are checked before loading."""

import io
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wsm_jax.core.exchange.gltf import Z_UP_TO_Y_UP
from wsm_jax.core.mesh import Mesh, joined
from wsm_jax.extras import extra
from wsm_jax.files import atomic
from wsm_jax.snapshot.colour import to_srgb

SUFFIXES = (".obj", ".stl", ".glb", ".gltf")

_GREY = 0.5
_COMPONENT_BYTES = {5120: 1, 5121: 1, 5122: 2, 5123: 2, 5125: 4, 5126: 4}
_COMPONENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
_FAR = 1e9


def read(path: str | Path) -> Mesh:
    """Read all meshes of a file in the world frame, as one; glTF is rotated from y up to z up, other formats are not.

    Colours are those of the vertices or of the material (base colour; Kd in an OBJ; textures are ignored), else mid-grey.
    Raises FileNotFoundError; ValueError with the path for a file that cannot be read or has no face, and for vertices that are
    not finite or beyond 1e9 m; ModuleNotFoundError without trimesh.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such mesh file")
    trimesh, kind = extra("trimesh"), path.suffix.lower()[1:]
    data = path.read_bytes()
    if kind in ("glb", "gltf"):
        _check_gltf(_gltf_header(data, kind, path), path)
    # resolves referenced files: the buffers of a glTF, the materials of an OBJ
    resolver = trimesh.resolvers.FilePathResolver(str(path)) if kind in ("gltf", "obj") else None
    try:
        with np.errstate(all="ignore"):
            scene = trimesh.load_scene(io.BytesIO(data), file_type=kind, resolver=resolver, process=False, skip_texture=True)
            meshes = [_mesh(scene, name, kind) for name in scene.graph.nodes_geometry]
        # parsers raise arbitrary exceptions for damaged files
    except (Exception, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read as {kind} ({type(error).__name__}: {str(error)[:200]})") from error
    meshes = [mesh for mesh in meshes if mesh is not None and len(mesh.faces)]
    if not meshes:
        raise ValueError(f"{path}: no triangle in it; needed a mesh")
    mesh = joined(meshes)
    vertices = np.asarray(mesh.vertices)
    if not np.isfinite(vertices).all() or np.abs(vertices).max() > _FAR:
        raise ValueError(f"{path}: a vertex that is not finite, or beyond {_FAR:g} m")
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(vertices):
        raise ValueError(f"{path}: a face names vertex {mesh.faces.max()}; the file has {len(vertices)}, counted from 0")
    return mesh


def _mesh(scene: Any, node: str, kind: str) -> Mesh | None:
    """The mesh of one node of a trimesh scene, in the world frame."""
    pose, name = scene.graph[node]
    geometry = scene.geometry[name]
    faces = getattr(geometry, "faces", None)
    if faces is None or not len(faces):
        return None
    pose = np.linalg.inv(Z_UP_TO_Y_UP) @ pose if kind in ("glb", "gltf") else pose
    vertices = np.asarray(geometry.vertices, np.float64) @ pose[:3, :3].T + pose[:3, 3]
    faces = np.array(faces, np.int64)
    if np.linalg.det(pose[:3, :3]) < 0:
        faces = faces[:, ::-1]
    colours = _colours(geometry.visual, len(vertices))
    if colours is None:
        colours = np.full(vertices.shape, _GREY)
    elif kind in ("glb", "gltf"):
        colours = to_srgb(colours)
    return Mesh(vertices, faces, colours)


def _colours(visual: Any, count: int) -> np.ndarray | None:
    """Colours of the vertices as stored in the file, 0..1; None if it has none."""
    if visual.kind == "vertex":
        return np.asarray(visual.vertex_colors, np.float64)[:count, :3] / 255.0
    material = getattr(visual, "material", None)
    factor = getattr(material, "baseColorFactor", None)
    diffuse = getattr(material, "kwargs", {}).get("kd")
    if factor is None and diffuse is not None:
        factor = np.clip(np.asarray(diffuse, np.float64), 0.0, 1.0)
    if factor is None:
        return None
    factor = np.asarray(factor)
    values = factor[:3] / 255.0 if factor.dtype.kind in "iu" else factor[:3].astype(np.float64)
    return np.broadcast_to(values, (count, 3))


def _gltf_header(data: bytes, kind: str, path: Path) -> Any:
    """The JSON of a glTF file, after a check of its lengths against the size of the file."""
    if kind == "glb":
        if len(data) < 20:
            raise ValueError(f"{path}: {len(data)} bytes; a GLB has 20 or more")
        magic, version, total, length, chunk = struct.unpack("<4sIII4s", data[:20])
        if magic != b"glTF" or version != 2 or chunk != b"JSON" or total != len(data) or 20 + length > len(data):
            raise ValueError(f"{path}: its header does not fit a GLB of version 2 with {len(data)} bytes")
        data = data[20 : 20 + length]
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: its JSON cannot be read ({str(error)[:100]})") from error


def _check_gltf(header: Any, path: Path) -> None:
    """Check that accessors lie inside their buffer views and that nodes form trees. Raises ValueError."""

    def fail(what: str) -> ValueError:
        return ValueError(f"{path}: {what}")

    try:
        views = header.get("bufferViews", [])
        for i, accessor in enumerate(header.get("accessors", [])):
            if "bufferView" not in accessor:
                raise fail(f"accessor {i} has no data of its own (sparse or compressed); needed plain glTF")
            view = views[accessor["bufferView"]]
            item = _COMPONENT_BYTES[accessor["componentType"]] * _COMPONENTS[accessor["type"]]
            count, stride = accessor["count"], view.get("byteStride", item)
            room = view["byteLength"] - accessor.get("byteOffset", 0)
            if count < 0 or stride < item or (count and (count - 1) * stride + item > room):
                raise fail(f"accessor {i} claims {count} items of {item} bytes; its view has {room} bytes")
        seen: set[int] = set()
        for node in header.get("nodes", []):
            children = node.get("children", [])
            if seen & set(children) or len(set(children)) != len(children):
                raise fail("a node has two parents; needed a tree")
            seen |= set(children)
        roots, reached = [i for i in range(len(header.get("nodes", []))) if i not in seen], 0
        while roots:
            node = roots.pop()
            reached += 1
            roots.extend(header["nodes"][node].get("children", []))
        if reached != len(header.get("nodes", [])):
            raise fail("its nodes form a cycle; needed a tree")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise fail(f"its glTF header is damaged ({type(error).__name__}: {error})") from error


def write(mesh: Mesh, path: str | Path, objects: Mapping[str, Mesh] | None = None) -> None:
    """Write .obj (vertex colours; named `objects`, if given, in place of `mesh`) or binary .stl (no colour); atomic."""
    path = Path(path)
    if path.suffix.lower() == ".stl":
        trimesh = extra("trimesh")
        data = trimesh.Trimesh(np.asarray(mesh.vertices), np.asarray(mesh.faces), process=False).export(file_type="stl")
    else:
        data = _obj({"mesh": mesh} if objects is None else objects).encode("ascii")
    with atomic(path) as part:
        part.write_bytes(data)


def _obj(objects: Mapping[str, Mesh]) -> str:
    lines, first = ["# metres, z up; v x y z r g b"], 1
    for name, mesh in objects.items():
        lines.append(f"o {name}")
        rows = np.c_[np.asarray(mesh.vertices, np.float64), np.asarray(mesh.colours, np.float64)].tolist()
        lines += ["v {:.9g} {:.9g} {:.9g} {:.4f} {:.4f} {:.4f}".format(*row) for row in rows]
        lines += ["f {} {} {}".format(*face) for face in (np.asarray(mesh.faces) + first).tolist()]
        first += len(mesh.vertices)
    return "\n".join(lines) + "\n"

"""Scene files: the representations that each file suffix supports, and their readers and writers."""

from pathlib import Path

import numpy as np

from wsm_jax.core.exchange import array_file, gltf, mesh_file, ply, splats, usd
from wsm_jax.core.exchange.conversion import Representation, checked
from wsm_jax.core.exchange.points import PointCloud
from wsm_jax.core.exchange.splats import Splats
from wsm_jax.core.exchange.tessellation import tessellate
from wsm_jax.core.exchange.voxels import VoxelGrid
from wsm_jax.core.mesh import Mesh, joined
from wsm_jax.core.physics import mjcf
from wsm_jax.core.physics.matter import matter
from wsm_jax.files import atomic
from wsm_jax.snapshot import Waves
from wsm_jax.snapshot import waves as core_json

WRITES: dict[str, tuple[str, ...]] = {
    ".json": ("waves",),
    ".ply": ("mesh", "points", "splats"),
    ".obj": ("mesh", "waves"),
    ".stl": ("mesh",),
    ".glb": ("mesh", "waves"),
    ".gltf": ("mesh", "waves"),
    ".usda": ("mesh", "waves"),
    ".usdc": ("mesh", "waves"),
    ".npz": ("points", "voxels", "distance", "density"),
    ".npy": ("voxels", "distance", "density"),
    ".xml": ("waves",),
}
"""Suffix -> forms that can be written. By default a scene keeps its form if possible, else takes the first."""

READS = (".json", ".ply", ".obj", ".stl", ".glb", ".gltf", ".npz", ".npy")
"""Suffixes that can be read; USD and MJCF (.xml) are write-only."""

_GREY = 0.5


def read(path: str | Path, tick: int = 0, spacing: float | None = None) -> Representation:
    """Read the scene in a file; `tick` selects the waves of a core over time, `spacing` (m) is for a bare .npy grid.

    Raises FileNotFoundError, or ValueError with the path for a suffix or content that cannot be read.
    """
    path = Path(path)
    match path.suffix.lower():
        case ".json":
            return _core(path, tick)
        case ".ply":
            return _ply(path)
        case ".npz" | ".npy":
            return array_file.read(path, spacing)
        case suffix if suffix in mesh_file.SUFFIXES:
            return mesh_file.read(path)
    raise ValueError(f"{path}: {path.suffix or 'no suffix'} is not read; needed one of {', '.join(READS)}")


def _core(path: Path, tick: int) -> Waves:
    waves, _ = core_json.load(path)
    if np.ndim(waves.presence) > 2:
        raise ValueError(f"{path}: presence of shape {np.shape(waves.presence)}; needed (waves,) or (ticks, waves)")
    if np.ndim(waves.presence) == 2:
        ticks = len(np.asarray(waves.presence))
        if not 0 <= tick < ticks:
            raise ValueError(f"{path}: tick {tick}; it has the ticks 0..{ticks - 1}")
        waves = waves[tick]
    return checked(waves, str(path))


def _ply(path: Path) -> Mesh | PointCloud | Splats:
    """Splats if the file has 3DGS columns, a mesh if it has faces, else points."""
    content = ply.read(path)
    vertex = content.vertex
    if not len(vertex["x"]):
        raise ValueError(f"{path}: no vertex in it; needed one or more")
    if splats.is_splats(vertex):
        return splats.from_ply(vertex, str(path))
    points = np.stack([np.asarray(vertex[name], np.float64) for name in "xyz"], -1)
    if np.abs(points).max() > 1e9:
        raise ValueError(f"{path}: a vertex {np.abs(points).max():g} m away; needed coordinates within 1e9 m")
    colours = np.full_like(points, _GREY)
    if {"red", "green", "blue"} <= set(vertex):
        channels = [np.asarray(vertex[name]) for name in ("red", "green", "blue")]
        # integers are bytes; floats are 0..1, unless one is larger, as in ascii files
        full = 255.0 if channels[0].dtype.kind in "ui" or max(c.max() for c in channels) > 1.0 else 1.0
        colours = np.clip(np.stack(channels, -1).astype(np.float64) / full, 0.0, 1.0)
    if len(content.faces):
        return Mesh(points, content.faces, colours)
    normals = np.zeros_like(points)
    if {"nx", "ny", "nz"} <= set(vertex):
        normals = np.stack([np.asarray(vertex[name], np.float64) for name in ("nx", "ny", "nz")], -1)
        length = np.linalg.norm(normals, axis=-1, keepdims=True)
        normals = np.where(length > 0, normals / np.where(length > 0, length, 1.0), 0.0)
    return PointCloud(points, normals, colours)


def goal(path: str | Path, wanted: str | None, start: str) -> str:
    """The form to write to a file: `wanted`, else `start` if the suffix supports it, else the first form of the suffix.

    Raises ValueError for a suffix that cannot be written, or that does not support `wanted`.
    """
    path = Path(path)
    forms = WRITES.get(path.suffix.lower())
    if forms is None:
        raise ValueError(f"{path}: {path.suffix or 'no suffix'} is not written; needed one of {', '.join(WRITES)}")
    if wanted is not None and wanted not in forms:
        raise ValueError(f"{path}: {path.suffix} does not hold {wanted}; it holds {', '.join(forms)}")
    return wanted or (start if start in forms else forms[0])


def write(shape: Representation, path: str | Path, detail: int) -> None:
    """Write a representation; atomic; `detail` as in tessellation.cube. Raises TypeError for a form not in `WRITES`."""
    path, suffix = Path(path), Path(path).suffix.lower()
    match suffix, shape:
        case ".json", Waves():
            core_json.save(shape, path)
        case ".ply", Splats():
            splats.write_ply(shape, path)
        case ".ply", Mesh() | PointCloud():
            _write_ply(shape, path)
        case ".obj", Waves():
            meshes, _ = tessellate(shape, detail)
            names = [f"{gltf.group_name(int(k))}_wave_{i}" for i, k in enumerate(np.asarray(shape.instance))]
            mesh_file.write(joined(meshes), path, dict(zip(names, meshes)))
        case ".obj" | ".stl", Mesh():
            mesh_file.write(shape, path)
        case ".glb" | ".gltf", Waves():
            gltf.write_waves(shape, path, detail)
        case ".glb" | ".gltf", Mesh():
            gltf.write_mesh(shape, path)
        case ".usda" | ".usdc", Waves():
            usd.write_waves(shape, path, detail)
        case ".usda" | ".usdc", Mesh():
            usd.write_mesh(shape, path)
        case ".xml", Waves():
            text = mjcf.to_mjcf(shape, matter(shape))
            with atomic(path) as part:
                part.write_text(text, encoding="utf-8")
        case ".npz" | ".npy", PointCloud() | VoxelGrid():
            array_file.write(shape, path)
        case _:
            raise TypeError(f"{path}: {type(shape).__name__} is not written to {suffix}")


def _write_ply(shape: Mesh | PointCloud, path: Path) -> None:
    points = np.asarray(shape.vertices if isinstance(shape, Mesh) else shape.points)
    columns = {name: points[:, i].astype(np.float32) for i, name in enumerate("xyz")}
    if isinstance(shape, PointCloud):
        columns |= {name: np.asarray(shape.normals)[:, i].astype(np.float32) for i, name in enumerate(("nx", "ny", "nz"))}
    codes = np.rint(255.0 * np.clip(np.asarray(shape.colours), 0.0, 1.0)).astype(np.uint8)
    columns |= {name: codes[:, i] for i, name in enumerate(("red", "green", "blue"))}
    ply.write(path, columns, np.asarray(shape.faces, np.int32) if isinstance(shape, Mesh) else None)

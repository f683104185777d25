"""Export of waves to glTF 2.0, by trimesh: one node per wave, grouped by instance, with its own material.

glTF has y up and linear colours: the root node rotates the world from z up to y up, and base colours are converted from sRGB.
"""

from pathlib import Path

import numpy as np

from wsm_jax.core.exchange.tessellation import DETAIL, tessellate
from wsm_jax.core.mesh import Mesh
from wsm_jax.core.rotation import matrix64
from wsm_jax.extras import extra
from wsm_jax.files import atomic
from wsm_jax.snapshot import Waves
from wsm_jax.snapshot.colour import to_linear

Z_UP_TO_Y_UP = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
"""World (z up) -> glTF (y up), column vectors."""


def group_name(instance: int) -> str:
    """Name of the node or prim with the waves of an instance; 0 is scenery."""
    return f"instance_{instance}" if instance else "scenery"


def write_waves(waves: Waves, path: str | Path, detail: int = DETAIL) -> None:
    """Write the waves with presence > 1/2 as .glb, or as .gltf with embedded buffers; atomic.

    Raises ValueError for waves with leading axes or without a present one, ModuleNotFoundError without trimesh.
    """
    trimesh = extra("trimesh")
    meshes, normals = tessellate(waves, detail)
    matrix = matrix64(waves.rotation)
    scene = trimesh.Scene()
    scene.graph.update("z_up", scene.graph.base_frame, matrix=Z_UP_TO_Y_UP)
    present = np.flatnonzero(np.asarray(waves.presence) > 0.5)
    if not len(present):
        raise ValueError(f"{path}: none of {waves.count} waves has a presence above 1/2; needed one")
    for i in present:
        centre = np.asarray(waves.centre, np.float64)[i]
        material = trimesh.visual.material.PBRMaterial(
            name=f"wave_{i}",
            baseColorFactor=np.append(to_linear(np.asarray(waves.colour)[i]), 1.0),
            roughnessFactor=float(np.asarray(waves.material)[i, 0]),
            metallicFactor=float(np.asarray(waves.material)[i, 1]),
        )
        mesh = trimesh.Trimesh(
            (np.asarray(meshes[i].vertices) - centre) @ matrix[i],
            np.asarray(meshes[i].faces),
            vertex_normals=normals[i] @ matrix[i],
            visual=trimesh.visual.TextureVisuals(material=material),
            process=False,
        )
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = matrix[i], centre
        group = group_name(int(np.asarray(waves.instance)[i]))
        scene.graph.update(group, "z_up", matrix=np.eye(4))
        scene.add_geometry(mesh, f"wave_{i}", f"wave_{i}", parent_node_name=group, transform=pose)
    _write(scene, Path(path))


def write_mesh(mesh: Mesh, path: str | Path) -> None:
    """Write one mesh with its vertex colours, as .glb or .gltf; atomic. Raises ModuleNotFoundError without trimesh."""
    trimesh = extra("trimesh")
    colours = np.rint(255.0 * np.c_[to_linear(np.clip(mesh.colours, 0.0, 1.0)), np.ones(len(mesh.vertices))]).astype(np.uint8)
    scene = trimesh.Scene()
    solid = trimesh.Trimesh(np.asarray(mesh.vertices), np.asarray(mesh.faces), vertex_colors=colours, process=False)
    scene.add_geometry(solid, "mesh", "mesh", transform=Z_UP_TO_Y_UP)
    _write(scene, Path(path))


def _write(scene: object, path: Path) -> None:
    gltf = extra("trimesh.exchange.gltf")
    if path.suffix.lower() == ".glb":
        data = gltf.export_glb(scene, include_normals=True)
    else:
        data = gltf.export_gltf(scene, include_normals=True, merge_buffers=True, embed_buffers=True)["model.gltf"]
    with atomic(path) as part:
        part.write_bytes(data)

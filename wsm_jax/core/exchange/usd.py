"""Export of waves to OpenUSD (.usda, .usdc), by usd-core: an Xform per instance with a coloured Mesh per wave."""

from pathlib import Path
from typing import Any

import numpy as np

from wsm_jax.core.exchange.gltf import group_name
from wsm_jax.core.exchange.tessellation import DETAIL, tessellate
from wsm_jax.core.mesh import Mesh
from wsm_jax.core.rotation import matrix64
from wsm_jax.extras import extra
from wsm_jax.files import atomic
from wsm_jax.snapshot import Waves
from wsm_jax.snapshot.colour import to_linear

ROOT = "/World"


def write_waves(waves: Waves, path: str | Path, detail: int = DETAIL) -> None:
    """Write the waves with presence > 1/2, in metres with z up; atomic.

    Every mesh is in the frame of its wave, under a transform, so that it can be posed. Colours are linear, as in USD.
    Raises ValueError for waves with leading axes or without a present one, ModuleNotFoundError without usd-core.
    """
    meshes, normals = tessellate(waves, detail)
    matrix = matrix64(waves.rotation)
    present = np.flatnonzero(np.asarray(waves.presence) > 0.5)
    if not len(present):
        raise ValueError(f"{path}: none of {waves.count} waves has a presence above 1/2; needed one")
    with atomic(path) as part:
        stage = _stage(part)
        geom = extra("pxr.UsdGeom")
        for i in present:
            group = f"{ROOT}/{group_name(int(np.asarray(waves.instance)[i]))}"
            geom.Xform.Define(stage, group)
            centre = np.asarray(waves.centre, np.float64)[i]
            local = Mesh((np.asarray(meshes[i].vertices) - centre) @ matrix[i], meshes[i].faces, meshes[i].colours)
            prim = _define(stage, f"{group}/wave_{i}", local, normals[i] @ matrix[i])
            pose = np.eye(4)
            pose[:3, :3], pose[3, :3] = matrix[i].T, centre
            prim.AddTransformOp().Set(extra("pxr.Gf").Matrix4d(*pose.ravel().tolist()))
            roughness, metalness = np.asarray(waves.material, np.float64)[i]
            _bind(stage, prim, f"wave_{i}", to_linear(np.asarray(waves.colour)[i]), float(roughness), float(metalness))
        stage.GetRootLayer().Save()


def write_mesh(mesh: Mesh, path: str | Path) -> None:
    """Write one mesh with its vertex colours; atomic. Raises ModuleNotFoundError without usd-core."""
    with atomic(path) as part:
        stage = _stage(part)
        _define(stage, f"{ROOT}/mesh", mesh, None)
        stage.GetRootLayer().Save()


def _stage(path: Path) -> Any:
    usd, geom = extra("pxr.Usd"), extra("pxr.UsdGeom")
    stage = usd.Stage.CreateNew(str(path))
    geom.SetStageUpAxis(stage, geom.Tokens.z)
    geom.SetStageMetersPerUnit(stage, 1.0)
    stage.SetDefaultPrim(geom.Xform.Define(stage, ROOT).GetPrim())
    return stage


def _define(stage: Any, path: str, mesh: Mesh, normals: np.ndarray | None) -> Any:
    """A polygon mesh prim; a single displayColor if all vertices have the same colour."""
    geom, vt = extra("pxr.UsdGeom"), extra("pxr.Vt")
    prim = geom.Mesh.Define(stage, path)
    vertices = np.ascontiguousarray(mesh.vertices, np.float32)
    prim.CreatePointsAttr(vt.Vec3fArray.FromNumpy(vertices))
    prim.CreateFaceVertexIndicesAttr(vt.IntArray.FromNumpy(np.ascontiguousarray(mesh.faces, np.int32).ravel()))
    prim.CreateFaceVertexCountsAttr(vt.IntArray.FromNumpy(np.full(len(mesh.faces), 3, np.int32)))
    prim.CreateExtentAttr(vt.Vec3fArray.FromNumpy(np.stack([vertices.min(0), vertices.max(0)])))
    prim.CreateSubdivisionSchemeAttr(geom.Tokens.none)
    if normals is not None:
        prim.CreateNormalsAttr(vt.Vec3fArray.FromNumpy(np.ascontiguousarray(normals, np.float32)))
        prim.SetNormalsInterpolation(geom.Tokens.vertex)
    colours = np.ascontiguousarray(to_linear(np.clip(mesh.colours, 0.0, 1.0)), np.float32)
    single = bool(np.all(colours == colours[0]))
    display = prim.CreateDisplayColorPrimvar(geom.Tokens.constant if single else geom.Tokens.vertex)
    display.Set(vt.Vec3fArray.FromNumpy(colours[:1] if single else colours))
    return prim


def _bind(stage: Any, prim: Any, name: str, colour: np.ndarray, roughness: float, metalness: float) -> None:
    """Bind a preview surface with the colour and material of the wave to its mesh."""
    shade, sdf, gf = extra("pxr.UsdShade"), extra("pxr.Sdf"), extra("pxr.Gf")
    material = shade.Material.Define(stage, f"{ROOT}/materials/{name}")
    shader = shade.Shader.Define(stage, f"{ROOT}/materials/{name}/surface")
    shader.CreateIdAttr("UsdPreviewSurface")
    shader.CreateInput("diffuseColor", sdf.ValueTypeNames.Color3f).Set(gf.Vec3f(*map(float, colour)))
    shader.CreateInput("roughness", sdf.ValueTypeNames.Float).Set(roughness)
    shader.CreateInput("metallic", sdf.ValueTypeNames.Float).Set(metalness)
    material.CreateSurfaceOutput().ConnectToSource(shader.ConnectableAPI(), "surface")
    shade.MaterialBindingAPI.Apply(prim.GetPrim()).Bind(material)

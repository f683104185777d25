"""Fits waves to a recording with geometry, says how well, and shows it.

    python -m launch.fit IN OUT.json [flags]

IN is a folder of RGB-D frames (color/, depth/, trajectory.log, and mask/ where objects are known), or .npz points with cameras;
see data_pipelines/recording/rgbd.py. Large planes become scenery, the rest objects. The first RGB-D frame is fitted, the others
are tracked, a tick each, and what they see first is fitted as it enters. OUT.json is the core, OUT.png shows every view: what
was recorded | the waves | how much nearer (red) or farther (green) they are.
Points and meshes without cameras: python -m launch.convert.
"""

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from launch.command import Usage, parse, run

if TYPE_CHECKING:
    from data_pipelines.recording.rgbd import Frame
    from wsm_jax.snapshot import Camera, Waves

COMMAND = "python -m launch.fit IN OUT.json"
MOST_ENTERING = 8
"""Most waves that one frame adds."""
WITHIN_M = 0.05
"""A pixel whose depth is nearer than this to the measured one is right."""


def _values() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_integer("waves", 64, "most waves", 1, flag_values=values)
    flags.DEFINE_integer("waves_per_object", 8, "most waves of one object", 1, flag_values=values)
    flags.DEFINE_float("plane_extent", 0.5, "planes longer than this become scenery, m; 0: none", 0.0, flag_values=values)
    flags.DEFINE_integer("points", 16384, "points of each frame that are looked at", 100, flag_values=values)
    flags.DEFINE_integer("frames", 0, "frames of an RGB-D folder; 0: all", 0, flag_values=values)
    flags.DEFINE_integer("shrink", 2, "every n-th pixel of the depth is used", 1, flag_values=values)
    flags.DEFINE_float("depth_unit", 1e-3, "one step of the depth pictures, m (TUM: 0.0002)", 1e-6, flag_values=values)
    flags.DEFINE_float("rate", 8.0, "RGB-D frames a second, Hz", 1e-3, flag_values=values)
    flags.DEFINE_bool("enter", True, "what is seen first in a later frame gets waves of its own", flag_values=values)
    flags.DEFINE_list("intrinsics", None, "fx,fy,cx,cy in pixels; default: 525,525,319.5,239.5", flag_values=values)
    return values


def main(arguments: list[str]) -> None:
    """Fits one recording. Raises Usage, ValueError or FileNotFoundError, all before anything is written."""
    values = _values()
    rest = parse(COMMAND, values, arguments, others=True)
    if len(rest) != 2:
        raise Usage(f"{COMMAND}: got {rest}; needed IN and OUT.json")
    source, target = Path(rest[0]), Path(rest[1])
    if target.suffix != ".json":
        raise Usage(f"{target}: needed a name that ends in .json")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target}: {target.parent} is no folder; make it first")
    begin = time.perf_counter()
    core, rows = fit_frames(source, values) if source.is_dir() else fit_points(source, values)
    from PIL import Image

    from wsm_jax.files import atomic
    from wsm_jax.snapshot import waves as core_json

    ticks = np.shape(core.presence)[:-1]
    picture = np.rint(255 * np.clip(np.concatenate(rows), 0, 1)).astype(np.uint8)
    with atomic(target.with_suffix(".png")) as part:
        Image.fromarray(picture).save(part)
        core_json.save(core, target, np.arange(ticks[0]) / values.rate if ticks else None)
    print(f"{target}, {target.with_suffix('.png')}: {time.perf_counter() - begin:.1f} s")


def fit_frames(source: Path, values: flags.FlagValues) -> tuple["Waves", list[np.ndarray]]:
    """The core [K N] of an RGB-D folder, and the pictures of its frames."""
    from data_pipelines.recording.rgbd import STRUCTURED_LIGHT, read_frames
    from wsm_jax.core.fitting.compare import depth_error
    from wsm_jax.core.fitting.observations import from_depth
    from wsm_jax.core.fitting.sets import fit_set, to_waves
    from wsm_jax.core.fitting.track import track

    given: list[str] = values.intrinsics or []
    try:
        lens = [float(x) for x in given] or STRUCTURED_LIGHT
    except ValueError:
        lens = ()
    if len(lens) != 4:
        raise Usage(f"--intrinsics={','.join(given)}; needed four numbers, fx,fy,cx,cy")
    frames = read_frames(source, lens, most=values.frames or None, shrink=values.shrink, unit_m=values.depth_unit)
    clouds = [from_depth(f.depth, f.camera, f.mask, f.rgb, noise=0.002, limit=values.points) for f in frames]
    start = time.perf_counter()
    options = {"max_waves_per_object": values.waves_per_object, "plane_extent": values.plane_extent or None}
    fit = fit_set(clouds[0], max_waves=values.waves, **options)
    seconds = time.perf_counter() - start
    scenery = int(np.sum(fit.instance == 0))
    print(
        f"{source}: {len(fit.instance)} waves ({scenery} of scenery, {fit.instance.max()} objects) in {seconds:.1f} s; "
        f"{100 * np.mean(fit.owner < 0):.1f} % of {len(fit.owner)} points belong to none"
    )
    first = to_waves(fit, clouds[0])
    fit_new = partial(fit_set, max_waves=MOST_ENTERING, **options) if values.enter else None
    core = track(first, clouds, values.rate, static=np.flatnonzero(fit.instance == 0).tolist(), fit_new=fit_new)
    present = np.asarray(core.presence) > 0.5
    rows = []
    for k, frame in enumerate(frames):
        error = depth_error(core[k], frame.camera, frame.depth, WITHIN_M)
        entered = f"{np.sum(present[k] & ~present[:k].any(0))} waves enter; " if k else ""
        print(
            f"  frame {k}: {entered}depth off by {1e3 * error['median']:.1f} mm (median); of the measured pixels "
            f"{100 * error['covered']:.1f} % are covered, of these {100 * error['within']:.1f} % lie within "
            f"{1e3 * WITHIN_M:.0f} mm, and {100 * error['in_front']:.1f} % more than that before the measured surface"
        )
        rows.append(_row(core[k], frame))
    return core, rows


def fit_points(source: Path, values: flags.FlagValues) -> tuple["Waves", list[np.ndarray]]:
    """The waves [N] of a points file, and the pictures of its cameras."""
    from data_pipelines.recording.rgbd import Frame, read_points
    from wsm_jax.core.fitting.observations import from_points
    from wsm_jax.core.fitting.sets import fit_set, to_waves

    given = read_points(source)
    cloud = from_points(given.points, colour=given.colours, limit=values.points)
    start = time.perf_counter()
    fit = fit_set(
        cloud, max_waves=values.waves, max_waves_per_object=values.waves_per_object, plane_extent=values.plane_extent or None
    )
    held = fit.owner >= 0
    print(
        f"{source}: {len(fit.instance)} waves ({np.sum(fit.instance == 0)} of scenery) of {len(cloud.points)} of "
        f"{len(given.points)} points in {time.perf_counter() - start:.1f} s; {100 * np.mean(held):.1f} % of them lie on one, "
        f"{1e3 * np.median(fit.residual[held]):.1f} mm off (median)"
    )
    waves = to_waves(fit, cloud)
    rows = []
    for k in range(0 if given.cameras is None else len(given.cameras.focal)):
        camera = given.cameras[k]  # type: ignore[index]
        rgb, depth = splatted(given.points, given.colours, camera, given.height // 2, given.width // 2)
        rows.append(_row(waves, Frame(rgb, depth, camera)))
    return waves, rows or [np.zeros((8, 8, 3))]


def splatted(
    points: np.ndarray, colours: np.ndarray, camera: "Camera", height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest point of every pixel and its neighbours: colour [H W 3] and depth [H W] (m; 0 where no point is)."""
    from wsm_jax.snapshot import quaternion_to_matrix

    local = (points - np.asarray(camera.position)) @ np.asarray(quaternion_to_matrix(camera.rotation))
    front = local[:, 2] > 0.05
    local, colours = local[front].astype(np.float64), colours[front]
    place = float(camera.focal) * local[:, :2] / local[:, 2:] + np.asarray(camera.offset) + [0.5 * width / height, 0.5]
    cell = np.floor(place * height).astype(int)
    order = np.argsort(-local[:, 2], kind="stable")  # the nearest is written last
    rgb, depth = np.zeros((height, width, 3), np.float32), np.zeros((height, width), np.float32)
    for shift in ((1, 1), (1, 0), (0, 1), (0, 0)):
        x, y = (cell[order] + shift).T
        seen = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        rgb[y[seen], x[seen]] = colours[order][seen]
        depth[y[seen], x[seen]] = local[order, 2][seen]
    return rgb, depth


def _row(waves: "Waves", frame: "Frame") -> np.ndarray:
    """Recorded | waves, lit from the camera | error of the depth, full colour at 0.2 m."""
    import jax
    import jax.numpy as jnp

    from wsm_jax.core.render import surface
    from wsm_jax.snapshot import quaternion_to_matrix

    height, width = frame.depth.shape
    here, eye = jax.tree.map(jnp.asarray, (waves, frame.camera))
    seen = surface(here, eye, height, width, channels=("depth", "normal", "base_colour"))
    depth = np.asarray(seen["depth"])[..., 0]
    axis = np.asarray(quaternion_to_matrix(frame.camera.rotation))[:, 2]
    light = 0.4 + 0.6 * np.clip(-np.asarray(seen["normal"]) @ axis, 0, 1)
    off = np.where((frame.depth > 0) & (depth > 0), depth - frame.depth, 0.0) / 0.2
    error = np.stack([np.clip(-off, 0, 1), np.clip(off, 0, 1), np.zeros_like(off)], -1)
    return np.concatenate([frame.rgb, np.asarray(seen["base_colour"]) * light[..., None], error], 1)


if __name__ == "__main__":
    run(main)

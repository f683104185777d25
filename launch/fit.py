"""Fit waves to a recording with geometry, and report and draw the errors.

    python -m launch.fit IN OUT.json [flags]

IN is a folder of RGB-D frames (color/, depth/, trajectory.log, and mask/ if objects are known), or .npz points with cameras;
see data_pipelines/recording/rgbd.py. Large planes become scenery, the rest objects. The first RGB-D frame is fitted, the others
are tracked, one tick each; surfaces first seen in a later frame are fitted when they enter. OUT.json is the core, OUT.png shows
every view: recording | waves | depth error (red: the waves are nearer, green: farther).
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
    from wsm_jax.snapshot import Waves

COMMAND = "python -m launch.fit IN OUT.json"


def _values() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_integer("waves", 64, "maximum number of waves", 1, flag_values=values)
    flags.DEFINE_integer("waves_per_object", 8, "maximum number of waves of one object", 1, flag_values=values)
    flags.DEFINE_float("plane_extent", 0.5, "minimum length of planes that become scenery, m; 0: none", 0.0, flag_values=values)
    flags.DEFINE_integer("points", 16384, "points used of each frame", 100, flag_values=values)
    flags.DEFINE_integer("frames", 0, "frames used of an RGB-D folder; 0: all", 0, flag_values=values)
    flags.DEFINE_integer("shrink", 2, "use every n-th pixel of the depth", 1, flag_values=values)
    flags.DEFINE_float("depth_unit", 1e-3, "unit of the depth images, m (TUM: 0.0002)", 1e-6, flag_values=values)
    flags.DEFINE_float("depth_noise", 0.002, "standard deviation of the depth near the camera, m", 0.0, flag_values=values)
    flags.DEFINE_float("rate", 8.0, "frame rate of the RGB-D frames, Hz", 1e-3, flag_values=values)
    flags.DEFINE_bool("enter", True, "fit new waves to surfaces first seen in a later frame", flag_values=values)
    flags.DEFINE_integer("max_entering", 8, "maximum number of new waves per frame", 1, flag_values=values)
    flags.DEFINE_float("tolerance", 0.05, "depth error up to which a pixel counts as correct, m", 1e-6, flag_values=values)
    flags.DEFINE_float("full_error", 0.2, "depth error of full colour in OUT.png, m", 1e-6, flag_values=values)
    flags.DEFINE_list("intrinsics", None, "fx,fy,cx,cy in pixels; default: 525,525,319.5,239.5", flag_values=values)
    return values


def main(arguments: list[str]) -> None:
    """Fit one recording. Raises Usage, ValueError or FileNotFoundError, all before anything is written."""
    values = _values()
    rest = parse(COMMAND, values, arguments, positional=True)
    if len(rest) != 2:
        raise Usage(f"{COMMAND}: got {rest}; needed IN and OUT.json")
    source, target = Path(rest[0]), Path(rest[1])
    if target.suffix != ".json":
        raise Usage(f"{target}: needed a name that ends in .json")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target}: {target.parent} is not a folder; create it first")
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
    """The core [K N] fitted to an RGB-D folder, and one picture per frame.

    Raises Usage, ValueError or FileNotFoundError.
    """
    from data_pipelines.recording.rgbd import STRUCTURED_LIGHT, read_frames
    from wsm_jax.core.fitting.compare import depth_error
    from wsm_jax.core.fitting.observations import from_depth
    from wsm_jax.core.fitting.sets import fit_set, to_waves
    from wsm_jax.core.fitting.track import track
    from wsm_jax.visualise.fit import fit_picture

    intrinsics = _intrinsics(values.intrinsics or []) or STRUCTURED_LIGHT
    frames = read_frames(source, intrinsics, most=values.frames or None, shrink=values.shrink, unit_m=values.depth_unit)
    clouds = [from_depth(f.depth, f.camera, f.mask, f.rgb, noise=values.depth_noise, limit=values.points) for f in frames]
    start = time.perf_counter()
    options = {"max_waves_per_object": values.waves_per_object, "plane_extent": values.plane_extent or None}
    fit = fit_set(clouds[0], max_waves=values.waves, **options)
    seconds = time.perf_counter() - start
    scenery = int(np.sum(fit.instance == 0))
    print(
        f"{source}: {len(fit.instance)} waves ({scenery} of scenery, {fit.instance.max()} objects) in {seconds:.1f} s; "
        f"{100 * np.mean(fit.owner < 0):.1f} % of {len(fit.owner)} points belong to no wave"
    )
    first = to_waves(fit, clouds[0])
    fit_new = partial(fit_set, max_waves=values.max_entering, **options) if values.enter else None
    core = track(first, clouds, values.rate, static=np.flatnonzero(fit.instance == 0).tolist(), fit_new=fit_new)
    present = np.asarray(core.presence) > 0.5
    rows = []
    for k, frame in enumerate(frames):
        error = depth_error(core[k], frame.camera, frame.depth, values.tolerance)
        entered = f"{np.sum(present[k] & ~present[:k].any(0))} new waves; " if k else ""
        print(
            f"  frame {k}: {entered}depth error {1e3 * error['median']:.1f} mm (median); of the measured pixels "
            f"{100 * error['covered']:.1f} % are covered, of these {100 * error['within']:.1f} % lie within "
            f"{1e3 * values.tolerance:.0f} mm, and {100 * error['in_front']:.1f} % more than that in front of the surface"
        )
        rows.append(fit_picture(core[k], frame.camera, frame.rgb, frame.depth, full_error=values.full_error))
    return core, rows


def _intrinsics(texts: list[str]) -> list[float]:
    """Four numbers, or none. Raises Usage."""
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        numbers = [0.0]
    if len(numbers) not in (0, 4):
        raise Usage(f"--intrinsics={','.join(texts)}; needed four numbers, fx,fy,cx,cy")
    return numbers


def fit_points(source: Path, values: flags.FlagValues) -> tuple["Waves", list[np.ndarray]]:
    """The waves [N] fitted to a points file, and one picture per camera.

    Raises ValueError or FileNotFoundError.
    """
    from data_pipelines.recording.rgbd import read_points
    from wsm_jax.core.fitting.observations import from_points
    from wsm_jax.core.fitting.sets import fit_set, to_waves
    from wsm_jax.visualise.fit import fit_picture, splat_points

    recorded = read_points(source)
    cloud = from_points(recorded.points, colour=recorded.colours, limit=values.points)
    start = time.perf_counter()
    fit = fit_set(
        cloud, max_waves=values.waves, max_waves_per_object=values.waves_per_object, plane_extent=values.plane_extent or None
    )
    owned = fit.owner >= 0
    print(
        f"{source}: {len(fit.instance)} waves ({np.sum(fit.instance == 0)} of scenery) of {len(cloud.points)} of "
        f"{len(recorded.points)} points in {time.perf_counter() - start:.1f} s; {100 * np.mean(owned):.1f} % belong to a wave, "
        f"at a distance of {1e3 * np.median(fit.residual[owned]):.1f} mm (median)"
    )
    waves = to_waves(fit, cloud)
    rows = []
    for k in range(0 if recorded.cameras is None else len(recorded.cameras.focal)):
        camera = recorded.cameras[k]  # type: ignore[index]
        rgb, depth = splat_points(recorded.points, recorded.colours, camera, recorded.height // 2, recorded.width // 2)
        rows.append(fit_picture(waves, camera, rgb, depth, full_error=values.full_error))
    return waves, rows or [np.zeros((8, 8, 3))]


def cli() -> None:
    """Run the command line. Entry point of `wsm-fit`."""
    run(main)


if __name__ == "__main__":
    cli()

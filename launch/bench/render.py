"""What `python -m launch.bench render` measures.

Every row is one picture of depth, instance and normal, cast with culling and without, and its gradient with respect to all
waves; MuJoCo draws the same waves (as convex meshes on their surfaces) as depth and segmentation, the two of these channels
that it has, one sample a pixel, as ours. All of a row is timed in turns, and the best of the turns counts, so that a busy
machine harms all alike.
"""

import dataclasses
import functools
import itertools
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from launch import command
from wsm_jax.core import ray, render, tile
from wsm_jax.core.mesh import surface_points
from wsm_jax.snapshot import Camera, Waves, look_at
from wsm_jax.snapshot.camera import DEFAULT_FOV, pixel_plane
from wsm_jax.snapshot.waves import empty

CHANNELS = ("depth", "instance", "normal")
_MATRIX = 2048


def scene(count: int, seed: int, area: float = 1.0) -> Waves:
    """`count` waves in a box of 4 m, whose cross sections add up to about `area` (m^2), whatever their number."""
    rng = np.random.default_rng(seed)
    rotation = rng.normal(size=(count, 4))
    scale = np.exp(rng.uniform(-0.7, 0.7, (count, 3)))
    scale *= np.sqrt(area / (np.pi * count)) / np.prod(scale, -1, keepdims=True) ** (1 / 3)
    return dataclasses.replace(
        empty(count),
        presence=np.ones(count, np.float32),
        centre=rng.uniform(-1.5, 1.5, (count, 3)).astype(np.float32),
        scale=scale.astype(np.float32),
        rotation=(rotation / np.linalg.norm(rotation, axis=-1, keepdims=True)).astype(np.float32),
        exponents=rng.uniform(0.1, 1.9, (count, 2)).astype(np.float32),
    )


def camera_at(distance: float) -> Camera:
    """A camera `distance` (m) from the middle of the scene, looking at it."""
    way = np.array([0.6, -0.7, 0.39])
    return look_at((distance * way / np.linalg.norm(way)).astype(np.float32), np.zeros(3, np.float32))


def timed(tasks: dict[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """Seconds of each task: the best of `turns`, taken in turn, after one that is not counted."""
    best = dict.fromkeys(tasks, np.inf)
    for turn in range(turns + 1):
        for name, task in tasks.items():
            begin = time.perf_counter()
            jax.block_until_ready(task())
            if turn:
                best[name] = min(best[name], time.perf_counter() - begin)
    return best


def peak_flops(turns: int) -> float:
    """Floating-point operations a second of a large float32 matrix product: what this machine's arithmetic gives at best."""
    matrix = jnp.ones((_MATRIX, _MATRIX), jnp.float32)
    product = jax.jit(jnp.matmul)
    return 2 * _MATRIX**3 / timed({"product": lambda: product(matrix, matrix)}, turns)["product"]


def flops_of_a_step() -> tuple[float, float]:
    """Floating-point operations and transcendental functions of one Newton step of one ray and wave, as XLA counts them."""
    rays, size = jnp.ones((3, 1024)), 1024
    step = jax.jit(ray.log_gauge_and_slope).lower(rays, rays, jnp.ones(size), jnp.ones((2, 1))).compile()
    analysis = step.cost_analysis() or {}
    return analysis.get("flops", 0.0) / size, analysis.get("transcendentals", 0.0) / size


@functools.partial(jax.jit, static_argnums=(2, 3))
def _picture(waves: Waves, camera: Camera, side: int, cull: bool) -> dict[str, jax.Array]:
    return render.surface(waves, camera, side, side, channels=CHANNELS, cull=cull)


@functools.partial(jax.jit, static_argnums=(2,))
def _gradient(waves: Waves, camera: Camera, side: int) -> Waves:
    def loss(waves: Waves) -> jax.Array:
        found = render.surface(waves, camera, side, side, channels=("depth", "normal"))
        return jnp.sum(found["depth"]) + jnp.sum(found["normal"])

    return jax.grad(loss, allow_int=True)(waves)


@functools.partial(jax.jit, static_argnums=(2,))
def _candidates(waves: Waves, camera: Camera, side: int) -> jax.Array:
    x, y = tile.separable(camera, *(jnp.asarray(values) for values in pixel_plane(camera, side, side)))
    return jnp.sum(tile.candidates(waves, camera, x, y, tile.grid(side, side).side).counts())


def choose_library() -> bool:
    """Sets MUJOCO_GL to what loads here, before MuJoCo is imported, and says so; False where nothing does.

    In a process of its own, for the function that knows it imports MuJoCo.
    """
    ask = "from data_pipelines.simulation.mujoco_renderer import gl_library; print(gl_library())"
    answer = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True)
    if answer.returncode:
        print(f"MuJoCo is left out: {answer.stderr.strip().splitlines()[-1]}")
        return False
    os.environ["MUJOCO_GL"] = answer.stdout.strip()
    print(f"MuJoCo draws with {os.environ['MUJOCO_GL']}")
    return True


def mujoco_task(waves: Waves, camera: Camera, side: int) -> Callable[[], object]:
    """A function that draws depth and segmentation with MuJoCo."""
    import mujoco

    from wsm_jax.core.physics.mjcf import numbers

    assets, bodies = [], []
    for i in range(waves.count):
        assets.append(f'<mesh name="m{i}" vertex="{numbers(surface_points(waves.scale[i], waves.exponents[i]))}"/>')
        pose = f'pos="{numbers(waves.centre[i])}" quat="{numbers(waves.rotation[i])}"'
        bodies.append(f'<body {pose}><geom type="mesh" mesh="m{i}" mass="1" contype="0" conaffinity="0"/></body>')
    turn = np.asarray(camera.rotation, np.float64)
    flipped = np.array([-turn[1], turn[0], turn[3], -turn[2]])  # OpenGL cameras look along -z: half a turn about x
    eye = f'<camera name="eye" fovy="{np.rad2deg(DEFAULT_FOV)}" pos="{numbers(camera.position)}" quat="{numbers(flipped)}"/>'
    # depth and segmentation gain nothing by the four samples a pixel that MuJoCo takes by itself
    visual = f'<visual><global offwidth="{side}" offheight="{side}"/><quality offsamples="0"/></visual>'
    world = f"<worldbody>{eye}{''.join(bodies)}</worldbody>"
    model = mujoco.MjModel.from_xml_string(f"<mujoco>{visual}<asset>{''.join(assets)}</asset>{world}</mujoco>")  # type: ignore[attr-defined]
    data = mujoco.MjData(model)  # type: ignore[attr-defined]
    mujoco.mj_forward(model, data)  # type: ignore[attr-defined]
    renderer = mujoco.Renderer(model, side, side)

    def draw() -> tuple[np.ndarray, np.ndarray]:
        renderer.update_scene(data, camera="eye")
        renderer.enable_depth_rendering()
        depth = renderer.render()
        renderer.disable_depth_rendering()
        renderer.enable_segmentation_rendering()
        segmentation = renderer.render()
        renderer.disable_segmentation_rendering()
        return depth, segmentation

    return draw


class View(NamedTuple):
    """What a row shows."""

    count: int
    side: int
    distance: float
    """Of the camera, m."""
    area: float
    """Of the cross sections, m^2."""
    seed: int


def row(view: View, turns: int, gradient: bool, brute: bool, mujoco: bool, bound: float) -> list[str]:
    """One line of the table; `bound` is in Newton steps a second."""
    count, side = view.count, view.side
    drawn, camera = scene(count, view.seed, view.area), camera_at(view.distance)
    waves, eye = jax.tree.map(jnp.asarray, (drawn, camera))
    programs = {"ours": _picture.lower(waves, eye, side, True).compile()}
    if brute:
        programs["brute"] = _picture.lower(waves, eye, side, False).compile()
    if gradient:
        programs["gradient"] = _gradient.lower(waves, eye, side).compile()
    tasks: dict[str, Callable[[], object]] = {name: functools.partial(run, waves, eye) for name, run in programs.items()}
    if mujoco:
        tasks["mujoco"] = mujoco_task(drawn, camera, side)
    best = timed(tasks, turns)
    covered = float(np.mean(np.asarray(programs["ours"](waves, eye)["instance"]) > 0))
    kept = float(_candidates(waves, eye, side)) * tile.grid(side, side).side ** 2 / (count * side**2)

    def milliseconds(name: str) -> str:
        return f"{1e3 * best[name]:.2f}" if name in best else "-"

    def mebibytes(name: str) -> str:
        """Memory beside what comes in and out, as XLA planned it."""
        found = programs[name].memory_analysis() if name in programs else None
        return "-" if found is None else f"{found.temp_size_in_bytes / 2**20:.1f}"

    ratio = f"{best['mujoco'] / best['ours']:.2f}" if mujoco else "-"
    tests = count * side**2 / best["ours"]
    numbers = [f"{tests / 1e6:.1f}", f"{tests * kept / 1e6:.2f}", f"{tests * kept / bound:.2%}", f"{1 / best['ours']:.1f}"]
    times = [milliseconds(name) for name in ("ours", "brute", "gradient", "mujoco")]
    return [
        str(count),
        f"{side}",
        f"{view.distance:g}",
        f"{view.area:g}",
        f"{covered:.1%}",
        f"{kept:.2%}",
        *numbers,
        *times,
        ratio,
        mebibytes("ours"),
        mebibytes("gradient"),
    ]


HEAD = (
    "waves", "side", "m away", "m^2", "covered", "tests kept", "Mtests/s", "M kept/s", "of bound", "fps", "ms", "ms uncut",
    "ms gradient", "ms MuJoCo", "MuJoCo / ours", "MiB", "MiB gradient",
)  # fmt: skip


def machine() -> str:
    """The processor, as /proc/cpuinfo names it, and its load."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    name = names[0] if names else platform.processor()
    return f"{os.cpu_count()} x {name}; load {load}; jax {jax.__version__} on {jax.default_backend()}"


def main(arguments: list[str]) -> int:
    """Prints the table, in Markdown."""
    values = flags.FlagValues()
    flags.DEFINE_list("sides", ["64", "256", "1024"], "sides of the square pictures, pixels", flag_values=values)
    flags.DEFINE_list("waves", ["8", "64", "256"], "numbers of waves", flag_values=values)
    flags.DEFINE_list("distances", ["6"], "of the camera from the middle of the scene, m", flag_values=values)
    flags.DEFINE_list("areas", ["1"], "of the cross sections of all waves together, m^2", flag_values=values)
    flags.DEFINE_integer("turns", 5, "turns of which the best counts", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("seed", 0, "of the scenes", lower_bound=0, flag_values=values)
    flags.DEFINE_bool("gradient", True, "time the gradient too", flag_values=values)
    flags.DEFINE_integer(
        "uncut", 2**20, "most ray-wave tests for which the caster without culling is timed", flag_values=values
    )
    flags.DEFINE_bool("mujoco", True, "time MuJoCo's renderer too", flag_values=values)
    command.parse("python -m launch.bench render", values, arguments)
    sides, counts = _numbers(values.sides, "--sides", int), _numbers(values.waves, "--waves", int)
    distances, areas = _numbers(values.distances, "--distances", float), _numbers(values.areas, "--areas", float)
    mujoco = values.mujoco and choose_library()
    flops, transcendentals = flops_of_a_step()
    peak = peak_flops(values.turns)
    print(machine())
    print(f"float32 matrix product: {peak / 1e9:.1f} GFLOP/s")
    print(f"a Newton step of a ray and a wave: {flops:.0f} flops, {transcendentals:.0f} transcendental functions")
    print(f"bound: {peak / flops / 1e6:.0f} million Newton steps a second, were all of its operations fused multiply-adds\n")
    print("| " + " | ".join(HEAD) + " |\n|" + "---:|" * len(HEAD))
    for count, side, distance, area in itertools.product(counts, sides, distances, areas):
        view = View(count, side, distance, area, values.seed)
        cells = row(view, values.turns, values.gradient, count * side**2 <= values.uncut, mujoco, peak / flops)
        print("| " + " | ".join(cells) + " |", flush=True)
    return 0


def _numbers(texts: list[str], flag: str, kind: type) -> list:
    """Positive numbers. Raises Usage."""
    try:
        found = [kind(text) for text in texts]
    except ValueError as error:
        raise command.Usage(f"{flag}={','.join(texts)}: {error}; needed numbers, by comma") from error
    if not found or min(found) <= 0:
        raise command.Usage(f"{flag}={','.join(texts)}; needed numbers above 0, by comma")
    return found

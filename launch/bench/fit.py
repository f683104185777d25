"""Benchmark of the fitter: time and accuracy for random superquadrics in four conditions, and for composite shapes.

    python -m launch.bench fit [--count=50] [--points=1024] [--seed=0] [--markdown=FILE]

Random superquadrics: semi-axes 0.5 exp(uniform(-0.7, 0.7)) m, exponents uniform in 0.1..1.9, any rotation, points uniform by
area. All lengths are relative to the geometric mean semi-axis. "clean": exact points; "noise": normal, 5 % in every
coordinate; "outliers": 30 % of the points uniform in a box 1.5 times the bounding box; "half seen": only points that face one
random direction, with 0.5 % noise. The fit knows neither the true wave nor, for a set, the true number of waves.
"""

import datetime
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from absl import flags

from launch import command
from wsm_jax.core import superquadric
from wsm_jax.core.fitting.compare import chamfer, iou, surface_samples
from wsm_jax.core.fitting.observations import Cloud, float32, from_mesh, from_points
from wsm_jax.core.fitting.robust import fit_one
from wsm_jax.core.fitting.sets import fit_set
from wsm_jax.core.geometry import Geometry, to_local
from wsm_jax.snapshot import quaternion_to_matrix
from wsm_jax.snapshot.camera import matrix_to_quaternion

CONDITIONS = ("clean", "noise 5 %", "outliers 30 %", "half seen")

PUBLISHED = """\
Published figures, for orientation only: other shapes, other measures, other machines.

| method | where | figures |
|---|---|---|
| EMS (2022) | ShapeNet, 13 classes, in category, as printed by SuperDec (second hand, units not stated) | Chamfer L1 5.771, L2 1.345, 5.68 primitives |
| SuperDec (2025) | the same | Chamfer L1 1.698, L2 0.047, 5.8 primitives |
| Marching-Primitives (2023), 256^3 | Toys4K, from a signed distance, as printed by arXiv 2512.09201 (second hand) | IoU 86.30 %, 194.6 s a shape |
| Marching-Primitives (2023), 128^3 | the same | 37.9 s a shape |
"""  # noqa: E501


def random_wave(rng: np.random.Generator) -> Geometry:
    """One of the random superquadrics of this benchmark."""
    rotation = rng.normal(size=4)
    return Geometry(
        float32(rng.normal(size=3)),
        float32(0.5 * np.exp(rng.uniform(-0.7, 0.7, 3))),
        float32(rotation / np.linalg.norm(rotation)),
        float32(rng.uniform(0.1, 1.9, 2)),
    )


def observed(wave: Geometry, condition: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` points of a wave (m, world frame) in one of CONDITIONS."""
    size = float(np.exp(np.mean(np.log(wave.scale))))
    seed = int(rng.integers(1 << 30))
    points = surface_samples(wave, 4 * count, seed)
    if condition == "half seen":
        view = rng.normal(size=3)
        local = superquadric.normal(to_local(wave, points), wave.scale, wave.exponents)
        facing = np.asarray(local) @ (np.asarray(quaternion_to_matrix(wave.rotation)).T @ view) > 0
        points = points[facing]
    points = points[rng.permutation(len(points))[:count]]
    if condition == "noise 5 %":
        points = points + 0.05 * size * rng.normal(size=points.shape)
    if condition == "half seen":
        points = points + 0.005 * size * rng.normal(size=points.shape)
    if condition == "outliers 30 %":
        low, high = points.min(0), points.max(0)
        bad = round(0.3 * count)
        points[:bad] = 0.5 * (low + high) + 0.75 * (high - low) * rng.uniform(-1, 1, (bad, 3))
    return points.astype(np.float32)


def single(count: int, points: int, seed: int) -> dict[str, np.ndarray]:
    """Condition -> [count 4]: seconds, Chamfer L1 / size, its floor (the true wave against itself), IoU."""
    results: dict[str, np.ndarray] = {}
    for condition in CONDITIONS:
        rng = np.random.default_rng(seed)
        rows = []
        fit_one(observed(random_wave(rng), condition, points, rng), outliers=0.5 * condition.startswith("outliers"))  # compiles
        rng = np.random.default_rng(seed)
        for _ in range(count):
            wave = random_wave(rng)
            seen = observed(wave, condition, points, rng)
            start = time.perf_counter()
            fit = fit_one(seen, outliers=0.5 * condition.startswith("outliers"))
            seconds = time.perf_counter() - start
            size = float(np.exp(np.mean(np.log(wave.scale))))
            floor = chamfer(wave, wave)["l1"] / size
            rows.append((seconds, chamfer(fit.geometry, wave)["l1"] / size, floor, iou(fit.geometry, wave)))
        results[condition] = np.asarray(rows)
    return results


def box(centre: tuple[float, ...], half: tuple[float, ...], exponents: tuple[float, float] = (0.1, 0.1)) -> Geometry:
    """An axis-aligned wave, from its centre and semi-axes (m)."""
    return Geometry(float32(centre), float32(half), matrix_to_quaternion(np.eye(3)), float32(exponents))


def together(*waves: Geometry) -> Geometry:
    """Stack waves into a set."""
    return jax.tree.map(lambda *x: np.stack(x), *waves)


def composites() -> dict[str, Geometry]:
    """Shapes of several waves, 1 to 2 m in size."""
    legs = [box((x, y, 0.35), (0.05, 0.05, 0.35)) for x in (-0.5, 0.5) for y in (-0.3, 0.3)]
    ball = (1.0, 1.0)
    return {
        "L (2 boxes)": together(box((0, 0, 0.1), (0.6, 0.3, 0.1)), box((-0.5, 0, 0.6), (0.1, 0.3, 0.5))),
        "T (2 boxes)": together(box((0, 0, 0.5), (0.1, 0.1, 0.5)), box((0, 0, 1.1), (0.6, 0.1, 0.1))),
        "dumb-bell (2 balls, 1 rod)": together(
            box((-0.6, 0, 0), (0.3, 0.3, 0.3), ball),
            box((0.6, 0, 0), (0.3, 0.3, 0.3), ball),
            Geometry(
                float32([0, 0, 0]),
                float32([0.1, 0.1, 0.5]),
                matrix_to_quaternion(np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])),
                float32([0.1, 1.0]),
            ),
        ),
        "snowman (3 balls)": together(*(box((0, 0, z), (r, r, r), ball) for z, r in ((0.4, 0.4), (0.95, 0.28), (1.35, 0.2)))),
        "table (5 boxes)": together(box((0, 0, 0.73), (0.6, 0.4, 0.03)), *legs),
    }


def torus(major: float = 0.5, minor: float = 0.15, rows: int = 64, columns: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (m) and triangles of a torus about z."""
    u, v = np.meshgrid(2 * np.pi * np.arange(rows) / rows, 2 * np.pi * np.arange(columns) / columns, indexing="ij")
    ring = major + minor * np.cos(v)
    vertices = np.stack([ring * np.cos(u), ring * np.sin(u), minor * np.sin(v)], -1).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    a, b = i * columns + j, (i + 1) % rows * columns + j
    c, d = (i + 1) % rows * columns + (j + 1) % columns, i * columns + (j + 1) % columns
    return vertices, np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])


def in_torus(points: np.ndarray, major: float = 0.5, minor: float = 0.15) -> np.ndarray:
    """True for points (m) inside the torus of `torus`."""
    return np.square(np.hypot(points[:, 0], points[:, 1]) - major) + np.square(points[:, 2]) < minor**2


def sets(points: int, max_waves: int) -> dict[str, tuple[float, ...]]:
    """Shape -> number of true waves (0: none), of fitted waves, seconds, Chamfer L1 (m), its floor (m), IoU."""
    rng = np.random.default_rng(0)
    results: dict[str, tuple[float, ...]] = {}

    def measure(name: str, cloud: Cloud, truth: Geometry | Callable, surface: Geometry | np.ndarray, count: int, reach) -> None:
        start = time.perf_counter()
        fit = fit_set(cloud, max_waves=max_waves, max_waves_per_object=max_waves)
        seconds = time.perf_counter() - start
        floor = chamfer(surface, surface)["l1"] if isinstance(surface, Geometry) else float("nan")
        near = chamfer(fit.geometry, surface)["l1"]
        results[name] = (count, len(fit.instance), seconds, near, floor, iou(fit.geometry, truth, 64, reach))

    fit_set(from_mesh(*torus(), points), max_waves=4)  # compiles
    for name, waves in composites().items():
        seen = surface_samples(waves, 2 * points, 5)
        seen = seen[rng.permutation(len(seen))[:points]]
        measure(name, from_points(seen, complete=True), waves, waves, len(waves.scale), None)
    mesh = torus()
    corner = np.array([0.65, 0.65, 0.15])
    measure("torus (mesh)", from_mesh(*mesh, points), in_torus, from_mesh(*mesh, 4096, 1).points, 0, (-corner, corner))
    return results


def single_report(results: dict[str, np.ndarray], points: int) -> str:
    """Table of single waves as Markdown."""
    count = len(next(iter(results.values())))
    lines = [
        f"{count} random superquadrics, {points} points each; medians, and the worst tenth. Chamfer L1 is relative to the mean "
        "semi-axis; its floor is that of the true surface against another sample of itself.",
        "",
        "| condition | s | Chamfer L1 | floor | IoU | IoU, worst tenth below | IoU below 0.9 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rows in results.items():
        middle = np.median(rows, 0)
        tenth, failed = np.quantile(rows[:, 3], 0.1), np.count_nonzero(rows[:, 3] < 0.9)
        values = f"{middle[0]:.2f} | {middle[1]:.4f} | {middle[2]:.4f} | {middle[3]:.4f} | {tenth:.4f} | {failed} of {count}"
        lines.append(f"| {name} | {values} |")
    return "\n".join([*lines, ""])


def sets_report(results: dict[str, tuple[float, ...]], points: int) -> str:
    """Table of composite shapes as Markdown."""
    lines = [f"Composite shapes, {points} clean points, number of waves chosen by the fit; Chamfer L1 in m.", ""]
    lines += ["| shape | true waves | fitted | s | Chamfer L1 | floor | IoU |", "|---|---|---|---|---|---|---|"]
    for name, (true, fitted, seconds, near, floor, overlap) in results.items():
        ends = f"{near:.4f} | {'-' if np.isnan(floor) else f'{floor:.4f}'} | {overlap:.3f}"
        lines.append(f"| {name} | {int(true) or '-'} | {int(fitted)} | {seconds:.1f} | {ends} |")
    return "\n".join([*lines, ""])


def main(arguments: list[str]) -> None:
    """Fit random superquadrics and composite shapes, and print the errors. Raises Usage or OSError."""
    values = flags.FlagValues()
    flags.DEFINE_integer("count", 50, "random superquadrics per condition", 1, flag_values=values)
    flags.DEFINE_integer("points", 1024, "points of each cloud", 64, flag_values=values)
    flags.DEFINE_integer("seed", 0, "random seed of the superquadrics", 0, flag_values=values)
    flags.DEFINE_integer("set_points", 2048, "minimum number of points of a composite shape", 64, flag_values=values)
    flags.DEFINE_integer("max_waves", 16, "maximum number of waves of a composite shape", 1, flag_values=values)
    flags.DEFINE_enum("part", "all", ["all", "single", "sets"], "single waves, composite shapes, or both", flag_values=values)
    flags.DEFINE_string("markdown", "", "also write the report to this file", flag_values=values)
    command.parse("python -m launch.bench fit", values, arguments)
    path = Path(values.markdown) if values.markdown else None
    if path is not None and not path.parent.is_dir():
        raise command.Usage(f"--markdown={path}: no folder {path.parent}; create it first")
    load = os.getloadavg()[0]
    parts = []
    if values.part in ("all", "single"):
        parts.append(single_report(single(values.count, values.points, values.seed), values.points))
    if values.part in ("all", "sets"):
        points = max(values.points, values.set_points)
        parts.append(sets_report(sets(points, values.max_waves), points))
    text = "\n".join([*parts, PUBLISHED])
    device = jax.devices()[0]
    machine = f"{os.cpu_count()} CPU cores ({platform.machine()})" if device.platform == "cpu" else device.device_kind
    line = "python -m launch.bench fit " + " ".join(arguments)
    loads = f"load {load:.1f} before, {os.getloadavg()[0]:.1f} after"
    text = f"## fit\n\n`{line.strip()}`, {datetime.date.today()}, {machine}, {loads}.\n\n{text}"
    print(text)
    if path is not None:
        path.write_text(text, "utf-8")

"""Converts a scene from one file into another, both by their suffix, and says what it cost.

    python -m launch.convert IN OUT [flags]

IN  is .json (a core) .ply (points, mesh or 3DGS, by its header) .obj .stl .glb .gltf .npz .npy
OUT is .json .ply .obj .stl .glb .gltf .usda .usdc .xml (MJCF) .npz .npy; --form chooses where a suffix holds several forms
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from launch.command import Usage, parse, run

if TYPE_CHECKING:
    from wsm_jax.core.exchange.conversion import Options, Representation

LARGE_M = 200.0
"""Of what is longer, the unit is doubted."""
COMMAND = "python -m launch.convert IN OUT"


def _values() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string(
        "form", None, "form of OUT where its suffix holds several, by WRITES of core/exchange/scene_file.py", flag_values=values
    )
    flags.DEFINE_integer("tick", 0, "tick of a core over time", flag_values=values)
    flags.DEFINE_integer("samples", 20_000, "points of a sampled surface", flag_values=values)
    flags.DEFINE_integer("resolution", 64, "cells along the longest side of a grid", flag_values=values)
    flags.DEFINE_integer("detail", 16, "cells along an edge of the cube that is laid onto a wave, even", flag_values=values)
    flags.DEFINE_integer("max_waves", 4096, "most waves that are made", flag_values=values)
    flags.DEFINE_integer("waves_per_object", 16, "most waves that one object is fitted by", flag_values=values)
    flags.DEFINE_enum(
        "splats", "moments", ["moments", "surface"], "splats are bodies, or stand on surfaces", flag_values=values
    )
    flags.DEFINE_float("spacing", None, "edge of a cell of a bare .npy grid, m", flag_values=values)
    flags.DEFINE_float("unit", 1.0, "what IN counts in, m (0.001: a file in millimetres)", 1e-9, 1e9, flag_values=values)
    flags.DEFINE_integer("compare", 128, "cells along the longest side for the IoU; 0: no comparison", flag_values=values)
    flags.DEFINE_integer("seed", 0, "of the sampled points", flag_values=values)
    flags.DEFINE_boolean("complete", True, "a cloud of points covers its objects on all sides", flag_values=values)
    return values


def main(arguments: list[str]) -> int | None:
    """Converts one file. Raises Usage, ValueError or FileNotFoundError, all before anything is written."""
    values = _values()
    rest = parse(COMMAND, values, arguments, others=True)
    if len(rest) != 2:
        raise Usage(f"{COMMAND}: got {rest}; needed two files, IN and OUT")
    source, target = Path(rest[0]), Path(rest[1])
    if values.compare < 0 or values.compare > 512:
        raise Usage(f"--compare={values.compare}; needed 0 to 512 cells")
    for name, suffix, what in (("tick", ".json", "a core over time has ticks"), ("spacing", ".npy", "a bare grid needs it")):
        if values[name].present and source.suffix.lower() != suffix:
            raise Usage(f"--{name}={values[name].value} for {source.name}; only {what} ({suffix})")
    if source.resolve() == target.resolve():
        raise Usage(f"{target}: is IN as well; needed another name for OUT")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target}: {target.parent} is no folder; make it first")
    if target.is_dir():
        raise Usage(f"{target}: is a folder; needed the name of a file")

    from wsm_jax.core.exchange import scene_file
    from wsm_jax.core.exchange.conversion import Options, convert, form, length, route, scaled

    names = ("samples", "resolution", "detail", "max_waves", "waves_per_object", "splats", "seed", "complete")
    options = Options(**{name: getattr(values, name) for name in names})
    scene_file.goal(target, values.form, "")
    try:
        begin = time.perf_counter()
        thing = scene_file.read(source, values.tick, values.spacing)
        if values.unit != 1.0:
            thing = scaled(thing, values.unit)
        elif (size := length(thing)) > LARGE_M:
            options.notes.append(f"size: taken as metres, {source.name} is {size:.4g} m long; is it in mm? --unit=0.001")
        read = time.perf_counter()
        goal = scene_file.goal(target, values.form, form(thing))
        way = route(form(thing), goal)
        try:
            made = convert(thing, goal, options)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error
        scene_file.write(made, target, values.detail)
        done = time.perf_counter()
        print(f"{' -> '.join(way)}: {describe(thing)} -> {describe(made)}")
        for note in options.notes:
            print(f"  approximated: {note}")
        sizes = f"{source.stat().st_size} -> {target.stat().st_size} bytes"
        print(f"  {sizes}, read {read - begin:.2f} s, converted and written {done - read:.2f} s: {target}")
        if values.compare:
            compare(thing, made, target, options, values.compare)
    except ModuleNotFoundError as error:
        if error.name is None or "wsm_jax[convert]" not in str(error):
            raise
        raise Usage(str(error)) from error
    return None


def describe(thing: "Representation") -> str:
    """How much of what a thing is."""
    from wsm_jax.core.exchange.points import PointCloud
    from wsm_jax.core.exchange.splats import Splats
    from wsm_jax.core.mesh import Mesh
    from wsm_jax.snapshot import Waves

    match thing:
        case Waves():
            return f"{thing.count} waves"
        case Mesh():
            return f"{len(thing.vertices)} vertices, {len(thing.faces)} faces"
        case PointCloud():
            return f"{len(thing.points)} points"
        case Splats():
            return f"{len(thing.means)} splats"
    return f"{'x'.join(map(str, thing.values.shape))} cells of {thing.spacing:.4g} m ({thing.kind})"


def compare(before: "Representation", made: "Representation", target: Path, options: "Options", cells: int) -> None:
    """Prints Chamfer-L1 and IoU between a scene and what the file holds, read again where this release reads its suffix."""
    from wsm_jax.core.exchange import comparison, scene_file
    from wsm_jax.core.exchange.conversion import convert, form

    if target.suffix.lower() in scene_file.READS and target.suffix.lower() != ".npy":
        after, what = scene_file.read(target), "the file read again"
    else:
        after, what = convert(made, "mesh", options) if form(made) == "waves" else made, "what was written"
    distance = comparison.chamfer(before, after, options)
    floor, samplings = comparison.spread(before, options)
    overlap = comparison.iou(before, after, options, cells)
    solid = f"IoU({cells}) {overlap:.4f}" if overlap is not None else "IoU: one of them is no solid"
    beside = f"({samplings} are {1e3 * floor:.4g} mm apart; at most {comparison.SAMPLES} points of each)"
    print(f"  Chamfer-L1 {1e3 * distance:.4g} mm {beside}; {solid}; of {what}")


if __name__ == "__main__":
    run(main)

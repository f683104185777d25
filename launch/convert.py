"""Convert a scene from one file format to another, chosen by suffix, and report sizes, time and agreement.

    python -m launch.convert IN OUT [flags]

IN  is .json (a core) .ply (points, mesh or 3DGS, by its header) .obj .stl .glb .gltf .npz .npy
OUT is .json .ply .obj .stl .glb .gltf .usda .usdc .xml (MJCF) .npz .npy; --form chooses if a suffix can hold several forms
"""

import time
from pathlib import Path

from absl import flags

from launch.command import Usage, parse, run

LARGE_M = 200.0
"""A scene longer than this gets a note that its unit may be wrong."""
COMMAND = "python -m launch.convert IN OUT"


def _values() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string(
        "form",
        None,
        "form of OUT if its suffix can hold several, see WRITES in core/exchange/scene_file",
        flag_values=values,
    )
    flags.DEFINE_integer("tick", 0, "tick to convert, of a core over time", flag_values=values)
    flags.DEFINE_integer("samples", 20_000, "points of a sampled surface", flag_values=values)
    flags.DEFINE_integer("resolution", 64, "cells along the longest side of a grid", flag_values=values)
    flags.DEFINE_integer("detail", 16, "cells along an edge of the cube mapped onto a wave, even", flag_values=values)
    flags.DEFINE_integer("max_waves", 4096, "maximum number of waves in OUT", flag_values=values)
    flags.DEFINE_integer("waves_per_object", 16, "maximum number of waves fitted to one object", flag_values=values)
    flags.DEFINE_enum(
        "splats", "moments", ["moments", "surface"], "splats represent solid bodies (moments) or surfaces", flag_values=values
    )
    flags.DEFINE_float("spacing", None, "cell size of a bare .npy grid, m", flag_values=values)
    flags.DEFINE_float("unit", 1.0, "length unit of IN, m (0.001 for a file in millimetres)", 1e-9, 1e9, flag_values=values)
    flags.DEFINE_integer("compare", 128, "cells along the longest side for the IoU; 0: no comparison", flag_values=values)
    flags.DEFINE_integer("seed", 0, "random seed of the sampled points", flag_values=values)
    flags.DEFINE_boolean("complete", True, "a point cloud covers its objects on all sides", flag_values=values)
    return values


def main(arguments: list[str]) -> int | None:
    """Convert one file. Raises Usage, ValueError or FileNotFoundError, all before anything is written."""
    values = _values()
    rest = parse(COMMAND, values, arguments, positional=True)
    if len(rest) != 2:
        raise Usage(f"{COMMAND}: got {rest}; needed two files, IN and OUT")
    source, target = Path(rest[0]), Path(rest[1])
    if values.compare < 0 or values.compare > 512:
        raise Usage(f"--compare={values.compare}; needed 0 to 512 cells")
    for name, suffix, use in (("tick", ".json", "a core over time has ticks"), ("spacing", ".npy", "a bare grid needs it")):
        if values[name].present and source.suffix.lower() != suffix:
            raise Usage(f"--{name}={values[name].value} for {source.name}; only {use} ({suffix})")
    if source.resolve() == target.resolve():
        raise Usage(f"{target}: is both IN and OUT; needed another name for OUT")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target}: {target.parent} is not a folder; create it first")
    if target.is_dir():
        raise Usage(f"{target}: is a folder; needed a file name")

    from wsm_jax.core.exchange import scene_file
    from wsm_jax.core.exchange.conversion import Options, convert, form, length, route, scaled
    from wsm_jax.core.exchange.report import agreement, describe

    names = ("samples", "resolution", "detail", "max_waves", "waves_per_object", "splats", "seed", "complete")
    options = Options(**{name: getattr(values, name) for name in names})
    scene_file.goal(target, values.form, "")
    try:
        begin = time.perf_counter()
        thing = scene_file.read(source, values.tick, values.spacing)
        if values.unit != 1.0:
            thing = scaled(thing, values.unit)
        elif (size := length(thing)) > LARGE_M:
            options.notes.append(f"size: read in metres, {source.name} is {size:.4g} m long; is it in mm? --unit=0.001")
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
            print(f"  {agreement(thing, made, target, options, values.compare)}")
    except ModuleNotFoundError as error:
        if error.name is None or "wsm_jax[convert]" not in str(error):
            raise
        raise Usage(str(error)) from error
    return None


def cli() -> None:
    """Run the command line. Entry point of `wsm-convert`."""
    run(main)


if __name__ == "__main__":
    cli()

"""Builds and looks at WSV datasets: python -m launch.data simulate | ingest | inspect | verify  (VERB --help: its flags)."""

import json
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from launch import command
from launch.command import Usage
from launch.world_files import write_picture

COMMAND = "python -m launch.data"


def simulate(arguments: list[str]) -> int:
    """Simulate physical scenes with exact channels, core and captions."""
    values = flags.FlagValues()
    flags.DEFINE_string("out", None, "the new dataset's directory or URL", flag_values=values)
    flags.DEFINE_integer("scenes", None, "number of scenes, one clip each", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("seed", 0, "of the scenes; scene i depends on (seed, i) alone", lower_bound=0, flag_values=values)
    flags.DEFINE_integer("first_scene", 0, "index of the first scene", lower_bound=0, flag_values=values)
    flags.DEFINE_string("size", "64x64", "HEIGHTxWIDTH in pixels, square", flag_values=values)
    flags.DEFINE_float("fps", 8.0, "frames a second", flag_values=values)
    flags.DEFINE_float("seconds", 3.0, "length of a clip, s", flag_values=values)
    flags.DEFINE_bool("pixels", True, "pictures; --nopixels writes cores, cameras and captions alone", flag_values=values)
    flags.DEFINE_enum("renderer", "wsm", ["wsm", "mujoco"], "who draws; mujoco needs EGL or OSMesa", flag_values=values)
    flags.DEFINE_string("objects", "1-3", "LEAST-MOST objects in a scene", flag_values=values)
    flags.DEFINE_float("screen", 0.4, "share of scenes with an occluding screen, 0..1", flag_values=values)
    flags.DEFINE_list(
        "stories", None, "kinds of story, by comma; without it all in which no wave comes or goes", flag_values=values
    )
    flags.DEFINE_list("cameras", None, "kinds of camera path to draw from, by comma; without it all", flag_values=values)
    flags.DEFINE_integer("workers", 2, "processes", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("clips_per_shard", 16, "clips that are written, or lost, at once", lower_bound=1, flag_values=values)
    flags.DEFINE_bool("progress", True, "progress bar", flag_values=values)
    command.parse(f"{COMMAND} simulate", values, arguments, ["out", "scenes"])
    height, width = command.size(values.size)
    choices = {key: tuple(kinds) for key in ("stories", "cameras") if (kinds := values[key].value) is not None}

    from data_pipelines.simulation.simulate import simulate as build

    manifest = build(
        values.out,
        scenes=values.scenes,
        seed=values.seed,
        height=height,
        width=width,
        frame_hz=values.fps,
        seconds=values.seconds,
        pixels=values.pixels,
        renderer=values.renderer,
        workers=values.workers,
        first_scene=values.first_scene,
        objects=_span(values.objects, "--objects"),
        screen=values.screen,
        clips_per_shard=values.clips_per_shard,
        progress=values.progress,
        **choices,
    )
    print(f"{values.out}: {manifest['counts']['clips']} clips, {manifest['counts']['bytes'] / 2**20:.2f} MiB")
    return 0


def _span(text: str, flag: str) -> tuple[int, int]:
    """LEAST-MOST, or one number for both. Raises Usage."""
    parts = text.split("-")
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise Usage(f"{flag}={text}; needed LEAST-MOST, as 1-3, or one number")
    return int(parts[0]), int(parts[-1])


def ingest(arguments: list[str]) -> int:
    """Cut real videos (mp4, mov, webm, mkv, folders of jpg/png frames) into clips of rgb."""
    values = flags.FlagValues()
    flags.DEFINE_string("out", None, "the new dataset's directory or URL", flag_values=values)
    flags.DEFINE_list("inputs", [], "videos and folders of frames, by comma; also as plain arguments", flag_values=values)
    flags.DEFINE_string("licence", None, "licence of the videos, kept in the manifest", flag_values=values)
    flags.DEFINE_string("name", None, "name of the dataset; without it, the last part of --out", flag_values=values)
    flags.DEFINE_string("size", "64x64", "HEIGHTxWIDTH in pixels; pictures are cropped to its aspect", flag_values=values)
    flags.DEFINE_float("fps", 8.0, "frames a second of the dataset, at most the video's own", flag_values=values)
    flags.DEFINE_float("clip_seconds", 2.0, "length of a clip, s", flag_values=values)
    flags.DEFINE_enum("codec", "jpeg", ["jpeg", "array"], "how rgb is kept; array is lossless and large", flag_values=values)
    flags.DEFINE_string("captions", None, 'JSON file {"a.mp4": ["what it shows", ...]}', flag_values=values)
    flags.DEFINE_float("folder_fps", None, "frames a second of inputs that are folders", flag_values=values)
    flags.DEFINE_bool("allow_truncated", False, "keep what is there of a video that ends early", flag_values=values)
    flags.DEFINE_bool("progress", True, "progress bars", flag_values=values)
    rest = command.parse(f"{COMMAND} ingest", values, arguments, ["out", "licence"], others=True)
    height, width = command.size(values.size)
    inputs = [*values.inputs, *rest]

    from data_pipelines.ingest.build import ingest as build

    manifest = build(
        inputs,
        values.out,
        name=values.name or Path(values.out).name,
        height=height,
        width=width,
        frame_hz=values.fps,
        clip_seconds=values.clip_seconds,
        licence=values.licence,
        codec=values.codec,
        captions=_captions(values.captions),
        fps=values.folder_fps,
        allow_truncated=values.allow_truncated,
        progress=values.progress,
    )
    for source in manifest["sources"]:
        kept = f"{source['clips']} clips, {source['seconds_used']:.3f} of {source['seconds']:.3f} s"
        print(f"{source['name']}: kept {kept}" + (f"; it ends early: {source['lost']}" if source["lost"] else ""))
    print(f"{values.out}: {manifest['counts']['clips']} clips, {manifest['counts']['bytes'] / 2**20:.2f} MiB")
    return 0


def _captions(path: str | None) -> dict[str, list[str]] | None:
    if path is None:
        return None
    try:
        captions = json.loads(Path(path).read_text())
    except ValueError as error:
        raise ValueError(f'{path}: is no JSON ({error}); needed {{"a.mp4": ["what it shows", ...]}}') from error
    if not isinstance(captions, dict) or not all(isinstance(texts, list) for texts in captions.values()):
        raise ValueError(f'{path}: needed an object of lists, {{"a.mp4": ["what it shows", ...]}}')
    return captions


def inspect(arguments: list[str]) -> int:
    """Print what a dataset holds; with --out=page.png, show some clips on a page."""
    values = flags.FlagValues()
    flags.DEFINE_string("data", None, "the dataset; also as a plain argument", flag_values=values)
    flags.DEFINE_string("out", None, "a picture (.png) of all channels of some clips", flag_values=values)
    flags.DEFINE_integer("clips", 3, "clips on the picture", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("frames", 8, "frames of a clip on the picture", lower_bound=1, flag_values=values)
    path = _dataset("inspect", values, arguments)
    if values.out and Path(values.out).suffix != ".png":
        raise Usage(f"--out={values.out}; needed a name that ends in .png")

    from data_pipelines.wsv import Dataset
    from launch.contact_sheet import contact_sheet
    from launch.dataset_table import table

    dataset = Dataset(path)
    print(table(dataset))
    if values.out:
        write_picture(Path(values.out), contact_sheet(dataset, values.clips, values.frames))
        print(f"\n{values.out}: a picture of {min(values.clips, len(dataset))} clips")
    return 0


def verify(arguments: list[str]) -> int:
    """Read every byte of a dataset; print one line a problem, exit code 1 if there is one."""
    values = flags.FlagValues()
    flags.DEFINE_string("data", None, "the dataset; also as a plain argument", flag_values=values)
    flags.DEFINE_bool("progress", True, "progress bar", flag_values=values)
    path = _dataset("verify", values, arguments)

    from data_pipelines.wsv import verify as problems_of

    problems = problems_of(path, values.progress)
    for line in problems:
        print(line)
    if not problems:
        print(f"{path}: sound")
    return 1 if problems else 0


def _dataset(verb: str, values: flags.FlagValues, arguments: Sequence[str]) -> str:
    """The one dataset that the arguments name."""
    rest = command.parse(f"{COMMAND} {verb}", values, arguments, others=True)
    paths = [*([values.data] if values.data else []), *rest]
    if len(paths) != 1:
        raise Usage(f"{COMMAND} {verb}: got {len(paths)} datasets {paths}; needed one, as --data=PATH")
    return paths[0]


VERBS: dict[str, command.Main] = {"simulate": simulate, "ingest": ingest, "inspect": inspect, "verify": verify}


def main(arguments: list[str]) -> int | None:
    """Runs the verb that the arguments start with."""
    verb, rest = command.choose(COMMAND, VERBS, arguments)
    return verb(rest)


if __name__ == "__main__":
    command.run(main)

"""Builds and looks at WSV datasets: python -m launch.data simulate | ingest | inspect | verify  (VERB --help: its flags)."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from launch import command
from launch.command import Usage
from launch.world_files import write_picture

if TYPE_CHECKING:
    from data_pipelines.ingest.build import Report

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
    """Cut real recordings (videos, frames, RGB-D, posed photos, robot episodes) into clips."""
    values = flags.FlagValues()
    flags.DEFINE_string("out", None, "the new dataset's directory or URL", flag_values=values)
    flags.DEFINE_list("inputs", [], "recordings, or folders of some, by comma; also as plain arguments", flag_values=values)
    flags.DEFINE_string("licence", None, "licence of the recordings, kept in the manifest", flag_values=values)
    flags.DEFINE_string("name", None, "name of the dataset; without it, the last part of --out", flag_values=values)
    flags.DEFINE_string("size", "64x64", "HEIGHTxWIDTH in pixels; pictures are cropped to its aspect", flag_values=values)
    flags.DEFINE_float("fps", 8.0, "frames a second of the dataset, at most the video's own", flag_values=values)
    flags.DEFINE_float("clip_seconds", 2.0, "length of a clip, s", flag_values=values)
    flags.DEFINE_list(
        "buckets", [], "instead of size, fps, clip_seconds: several HEIGHTxWIDTH@HZxSECONDS, by comma", flag_values=values
    )
    flags.DEFINE_enum(
        "codec",
        "jpeg",
        ["jpeg", "h264", "array"],
        "how rgb is kept; h264 is a tenth of jpeg, array lossless",
        flag_values=values,
    )
    flags.DEFINE_list("derive", [], "channels to work out where depth and cameras are: normal, motion", flag_values=values)
    flags.DEFINE_string(
        "captions", None, '.json {"a.mp4": ["text", ...]}, or .jsonl of {"file": ..., "caption": ...}', flag_values=values
    )
    flags.DEFINE_string(
        "masks", None, "folder of folders of png masks, as FOLDER/a/*.png of a.mp4: instances", flag_values=values
    )
    flags.DEFINE_float("folder_fps", None, "frames a second of recordings without times: folders, episodes", flag_values=values)
    flags.DEFINE_float("depth_unit", None, "one step of RGB-D depth in m, as 0.001", flag_values=values)
    flags.DEFINE_list("intrinsics", None, "fx,fy,cx,cy of RGB-D pictures, pixels", flag_values=values)
    flags.DEFINE_bool("allow_truncated", False, "keep what is there of a video that ends early", flag_values=values)
    flags.DEFINE_bool(
        "allow_missing", False, "leave out photos that a reconstruction names and that are not there", flag_values=values
    )
    flags.DEFINE_bool("shots", True, "cut at shots", flag_values=values)
    flags.DEFINE_float("min_sharpness", 0.0, "leave out clips that are blurred more (see inspect)", flag_values=values)
    flags.DEFINE_float("min_change", 0.0, "leave out clips that change less a second, levels of 255", flag_values=values)
    flags.DEFINE_float("max_duplicates", 1.0, "leave out clips with a larger share of repeated frames", flag_values=values)
    flags.DEFINE_bool("strict", False, "whatever cannot be used is an error", flag_values=values)
    flags.DEFINE_integer("workers", 2, "processes", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("host", 0, "of several that build together: which this is", lower_bound=0, flag_values=values)
    flags.DEFINE_integer("hosts", 1, "how many build together", lower_bound=1, flag_values=values)
    flags.DEFINE_bool("progress", True, "progress bars", flag_values=values)
    rest = command.parse(f"{COMMAND} ingest", values, arguments, ["out", "licence"], others=True)
    height, width = command.size(values.size)

    from data_pipelines.ingest import caption
    from data_pipelines.ingest.bucket import Bucket
    from data_pipelines.ingest.build import ingest as build
    from data_pipelines.ingest.plan import Filters
    from data_pipelines.ingest.scan import Reading

    lens = None if values.intrinsics is None else tuple(_number(text, "--intrinsics") for text in values.intrinsics)
    buckets = [Bucket.parse(text) for text in values.buckets] or [Bucket(height, width, values.fps, values.clip_seconds)]
    report = build(
        [*values.inputs, *rest],
        values.out,
        name=values.name or Path(values.out).name,
        licence=values.licence,
        buckets=buckets,
        codec=values.codec,
        derive=tuple(values.derive),
        captions=caption.read(values.captions) if values.captions else None,
        masks=values.masks,
        how=Reading(values.folder_fps, values.allow_truncated, values.allow_missing, values.depth_unit, lens),
        filters=Filters(values.shots, values.min_sharpness, values.min_change, values.max_duplicates),
        strict=values.strict,
        workers=values.workers,
        host=values.host,
        hosts=values.hosts,
        progress=values.progress,
    )
    _print_report(report, values.out)
    return 0


def _number(text: str, flag: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise Usage(f"{flag}: {text!r} is no number") from error


def _print_report(report: "Report", out: str) -> None:
    """What was kept of every recording, what was left out and why, and the datasets."""
    for manifest in report.manifests.values():
        for source in manifest["sources"]:
            long = f", {source['seconds_used']:.3f} of {source['seconds']:.3f} s" if source["seconds_used"] else ""
            print("; ".join([f"{source['name']}: kept {source['clips']} clips{long}", *source["notes"]]))
    reasons = Counter(one.reason.split(":")[0] if one.start is not None else one.reason for one in report.rejected)
    for reason, count in reasons.most_common(20):
        first = next(one for one in report.rejected if one.reason.startswith(reason))
        print(f"left out: {first.name}" + (f" and {count - 1} more" if count > 1 else "") + f": {reason}")
    if len(reasons) > 20:
        print(f"left out: {len(reasons) - 20} more reasons")
    if report.rejected:
        whole = sum(one.start is None for one in report.rejected)
        print(f"left out in all: {whole} whole, {len(report.rejected) - whole} parts; rejected.jsonl lists them")
    for folder, manifest in report.manifests.items():
        path = f"{out}/{folder}" if folder else out
        print(f"{path}: {manifest['counts']['clips']} clips, {manifest['counts']['bytes'] / 2**20:.2f} MiB")


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

"""Builds and looks at WSV datasets: python -m launch.data VERB; without a verb it lists them, VERB --help its flags."""

import functools
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from launch import command
from launch.command import Usage
from launch.world_files import output, write_bytes, write_picture

if TYPE_CHECKING:
    from data_pipelines.ingest.build import Report
    from data_pipelines.ingest.caption import Cue
    from data_pipelines.workers import Run

COMMAND = "python -m launch.data"
_SHOWN = 20
"""Lines of a kind that are printed."""


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
    _beam_flags(values)
    flags.DEFINE_integer("clips_per_shard", 16, "clips that are written, or lost, at once", lower_bound=1, flag_values=values)
    flags.DEFINE_integer(
        "frames_per_chunk", None, "frames read together (see advise); without it a second's", lower_bound=1, flag_values=values
    )
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
        frames_per_chunk=values.frames_per_chunk,
        runner=_runner(values),
        progress=values.progress,
        **choices,
    )
    print(f"{values.out}: {manifest['counts']['clips']} clips, {manifest['counts']['bytes'] / 2**20:.2f} MiB")
    return 0


def _beam_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_bool("beam", False, "an Apache Beam pipeline does the work, instead of --workers", flag_values=values)
    flags.DEFINE_string("beam_options", "", "options of Beam, as '--runner=DataflowRunner --project=...'", flag_values=values)


def _runner(values: flags.FlagValues) -> "Run":
    """What does the work: processes, or a pipeline. Raises Usage."""
    from data_pipelines import beam, workers

    if not values.beam:
        if values.beam_options:
            raise Usage(f"--beam_options={values.beam_options}: needed --beam beside it")
        limit = values.limit_s if "limit_s" in values and values.limit_s else None
        return functools.partial(workers.run, limit_s=limit)
    try:
        return beam.runner(shlex.split(values.beam_options))
    except ModuleNotFoundError as error:
        raise Usage(f"--beam: {error}") from error
    except ValueError as error:
        raise Usage(f"--beam_options={values.beam_options}: {error}") from error


def _span(text: str, flag: str) -> tuple[int, int]:
    """LEAST-MOST, or one number for both. Raises Usage."""
    parts = text.split("-")
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise Usage(f"{flag}={text}; needed LEAST-MOST, as 1-3, or one number")
    return int(parts[0]), int(parts[-1])


def _ingest_flags(values: flags.FlagValues) -> None:
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
    flags.DEFINE_integer(
        "frames_per_chunk",
        None,
        "frames read together (see advise); without it 8 at most",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_list("derive", [], "channels to work out where depth and cameras are: normal, motion", flag_values=values)
    flags.DEFINE_string(
        "captions",
        None,
        '.json {"a.mp4": ["text", ...]}, or .jsonl of {"file": ..., "caption": ...}; what is of a part alone has "start" and '
        '"end" in s (in .json as {"text": ..., "start": ..., "end": ...})',
        flag_values=values,
    )
    flags.DEFINE_string(
        "masks", None, "folder of masks of instances: FOLDER/a/*.png, a.npy, a.npz or a.mkv of a.mp4", flag_values=values
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
    _beam_flags(values)
    flags.DEFINE_float(
        "limit_s", 3600, "seconds that a process may be at one recording before it is given up; 0: any", flag_values=values
    )
    flags.DEFINE_integer("host", 0, "of several that build together: which this is", lower_bound=0, flag_values=values)
    flags.DEFINE_integer("hosts", 1, "how many build together", lower_bound=1, flag_values=values)
    flags.DEFINE_bool("progress", True, "progress bars", flag_values=values)


def ingest(arguments: list[str]) -> int:
    """Cut real recordings (videos, frames, RGB-D, posed photos, robot episodes) into clips."""
    values = flags.FlagValues()
    _ingest_flags(values)
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
        frames_per_chunk=values.frames_per_chunk,
        derive=tuple(values.derive),
        captions=caption.read(values.captions) if values.captions else None,
        masks=values.masks,
        how=Reading(values.folder_fps, values.allow_truncated, values.allow_missing, values.depth_unit, lens),
        filters=Filters(values.shots, values.min_sharpness, values.min_change, values.max_duplicates),
        strict=values.strict,
        workers=values.workers,
        host=values.host,
        hosts=values.hosts,
        runner=_runner(values),
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
    sources = [source for manifest in report.manifests.values() for source in manifest["sources"]]
    for source in sources[:_SHOWN]:
        long = f", {source['seconds_used']:.3f} of {source['seconds']:.3f} s" if source["seconds_used"] else ""
        print(f"{source['name']}: kept {source['clips']} clips{long}")
    if rest := sources[_SHOWN:]:
        seconds = f"{sum(s['seconds_used'] for s in rest):.3f} of {sum(s['seconds'] for s in rest):.3f} s"
        print(f"and {len(rest)} more recordings: kept {sum(s['clips'] for s in rest)} clips, {seconds}")
    notes = Counter(note for source in sources for note in source["notes"])
    for note, count in notes.most_common(_SHOWN):
        print(f"note on {count} recording{'s' * (count > 1)}: {note}")
    reasons = Counter(one.reason.split(":")[0] if one.start is not None else one.reason for one in report.rejected)
    for reason, count in reasons.most_common(_SHOWN):
        first = next(one for one in report.rejected if one.reason.startswith(reason))
        print(f"left out: {first.name}" + (f" and {count - 1} more" if count > 1 else "") + f": {reason}")
    if len(reasons) > _SHOWN:
        print(f"left out: {len(reasons) - _SHOWN} more reasons")
    if report.rejected:
        whole = sum(one.start is None for one in report.rejected)
        print(f"left out in all: {whole} whole, {len(report.rejected) - whole} parts; rejected.jsonl lists them")
    for folder, manifest in report.manifests.items():
        path = f"{out}/{folder}" if folder else out
        print(f"{path}: {manifest['counts']['clips']} clips, {manifest['counts']['bytes'] / 2**20:.2f} MiB")


def inspect(arguments: list[str]) -> int:
    """Print what a dataset, or a collection, holds; with --out or --html, show some clips."""
    values = flags.FlagValues()
    flags.DEFINE_string("data", None, "the dataset; also as a plain argument", flag_values=values)
    flags.DEFINE_string("out", None, "a picture (.png) of all channels of some clips", flag_values=values)
    flags.DEFINE_string("html", None, "a page (.html) with pictures, captions, and what was left out", flag_values=values)
    flags.DEFINE_integer("clips", 3, "clips on the picture", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("frames", 8, "frames of a clip on the picture", lower_bound=1, flag_values=values)
    path = _dataset("inspect", values, arguments)
    if values.out and Path(values.out).suffix != ".png":
        raise Usage(f"--out={values.out}; needed a name that ends in .png")
    page = None if values.html is None else output(values.html, ".html", "--html")

    from data_pipelines.wsv import Dataset, collection
    from data_pipelines.wsv.folder import Folder
    from launch.contact_sheet import contact_sheet
    from launch.dataset_page import dataset_page
    from launch.dataset_table import table

    datasets = [Dataset(part) for part in collection.datasets(Folder(path))]
    print("\n\n".join(table(dataset) for dataset in datasets))
    if values.out:
        if len(datasets) > 1:
            raise Usage(f"--out={values.out}: {path} is a collection of {len(datasets)}; name one of them, or use --html")
        write_picture(Path(values.out), contact_sheet(datasets[0], values.clips, values.frames))
        print(f"\n{values.out}: a picture of {min(values.clips, len(datasets[0]))} clips")
    if page is not None:
        write_bytes(page, dataset_page(Path(path).name, datasets, values.clips, values.frames).encode())
        print(f"\n{page}: a page of {len(datasets)} dataset{'s' * (len(datasets) > 1)}")
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


def advise(arguments: list[str]) -> int:
    """Print the layout that serves a training best, what each host will do, and what is assumed."""
    values = flags.FlagValues()
    flags.DEFINE_integer("frames", 16, "frames of a window", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("stored_frames", 64, "frames of a stored clip", lower_bound=1, flag_values=values)
    flags.DEFINE_string("size", "256x256", "HEIGHTxWIDTH of the pictures", flag_values=values)
    flags.DEFINE_integer("bytes", 3, "bytes of a pixel, raw, of all channels (rgb 3, depth 2, ...)", flag_values=values)
    flags.DEFINE_integer("arrays", 1, "arrays that a clip is read from", lower_bound=1, flag_values=values)
    flags.DEFINE_enum("codec", "zstd", ["none", "zstd", "jpeg", "h264"], "how pictures are kept", flag_values=values)
    flags.DEFINE_bool("aligned", False, "windows begin with a chunk", flag_values=values)
    flags.DEFINE_integer("batch", 64, "clips of a global batch", lower_bound=1, flag_values=values)
    flags.DEFINE_float("step_s", 1.0, "seconds of a training step", lower_bound=1e-6, flag_values=values)
    flags.DEFINE_integer("hosts", 1, "hosts that load", lower_bound=1, flag_values=values)
    flags.DEFINE_float("latency_ms", 0.1, "of a read: 0.1 for a disk, 20 for a bucket", lower_bound=0.0, flag_values=values)
    flags.DEFINE_float("bandwidth", 1000.0, "MiB/s of one host", lower_bound=1e-3, flag_values=values)
    rest = command.parse(f"{COMMAND} advise", values, arguments, others=True)
    if rest:
        raise Usage(f"{COMMAND} advise: got {rest}; it takes flags alone")
    height, width = command.size(values.size)

    from data_pipelines.loading import advice
    from launch.advice_table import table

    use = advice.Use(values.frames, height, width, values.bytes, values.arrays, values.codec, values.aligned)
    clips_s = values.batch / values.step_s / values.hosts
    print(table(use, values.stored_frames, clips_s, values.latency_ms, values.bandwidth))
    return 0


def repair(arguments: list[str]) -> int:
    """Rebuild damaged files of a dataset: of its recipe, or of its recordings, which are given again as plain arguments."""
    values = flags.FlagValues()
    flags.DEFINE_string("data", None, "the dataset, or a folder of several", flag_values=values)
    flags.DEFINE_list("inputs", [], "its recordings, or folders of some, by comma; also as plain arguments", flag_values=values)
    flags.DEFINE_string("captions", None, "those that were given to ingest, where text is damaged", flag_values=values)
    flags.DEFINE_string("masks", None, "the folder of masks that was given to ingest", flag_values=values)
    flags.DEFINE_integer("workers", 2, "processes", lower_bound=1, flag_values=values)
    flags.DEFINE_bool("progress", True, "progress bars", flag_values=values)
    rest = command.parse(f"{COMMAND} repair", values, arguments, ["data"], others=True)

    from data_pipelines.ingest import caption
    from data_pipelines.wsv import collection
    from data_pipelines.wsv import repair as mend
    from data_pipelines.wsv import verify as problems_of
    from data_pipelines.wsv.folder import Folder
    from data_pipelines.wsv.repair import head

    inputs, texts = [*values.inputs, *rest], caption.read(values.captions) if values.captions else {}
    root = Folder(values.data)
    several = [] if head(root.path) else [root.name(part) for part in collection.below(root)]
    seen: dict[Any, Any] = {}
    makers = {path: _maker(path, inputs, texts, seen, values.masks) for path in several or [root.path]}
    refused = [maker.refused for maker, _ in makers.values() if hasattr(maker, "refused")]
    if inputs and not refused:
        raise Usage(f"{COMMAND} repair: {root.path} is not made of recordings; got {', '.join(map(str, inputs))}")
    for name in sorted(set.intersection(*map(set, refused)) if refused else ()):
        print(refused[0][name])
    for path, (maker, more) in makers.items():
        for line in mend(path, maker, values.progress, workers=values.workers, **more):
            print(line)
    if several and collection.damaged(root):
        print(collection.restore(root))
    problems = problems_of(root.path, values.progress)
    print(f"{root.path}: {f'{len(problems)} problems are left' if problems else 'sound'}")
    return 1 if problems else 0


def _maker(
    path: str, inputs: list[str], texts: "dict[str, list[str | Cue]]", seen: dict[Any, Any], masks: str | None
) -> tuple[Any, dict[str, Any]]:
    """What makes the clips of a dataset again (None: nothing does), and the arguments of `wsv.repair` that go with it."""
    from data_pipelines.ingest.remake import remake
    from data_pipelines.simulation.simulate import maker
    from data_pipelines.wsv.repair import head

    known = head(path)
    build = known["build"] if known else {}
    try:
        if known and build.get("command") == "simulate":
            simulated = maker(known)
            return simulated, {"environment": simulated.environment}
        if known and build.get("verb") == "ingest":
            cut = remake(path, known, inputs, texts, seen, masks)
            return cut, {"attached": cut.attached if inputs else None}
    except ValueError as error:
        print(error)
    return None, {}


def _dataset(verb: str, values: flags.FlagValues, arguments: Sequence[str]) -> str:
    """The one dataset that the arguments name."""
    rest = command.parse(f"{COMMAND} {verb}", values, arguments, others=True)
    paths = [*([values.data] if values.data else []), *rest]
    if len(paths) != 1:
        raise Usage(f"{COMMAND} {verb}: got {len(paths)} datasets {paths}; needed one, as --data=PATH")
    return paths[0]


VERBS: dict[str, command.Main] = {
    "simulate": simulate,
    "ingest": ingest,
    "inspect": inspect,
    "verify": verify,
    "advise": advise,
    "repair": repair,
}


def main(arguments: list[str]) -> int | None:
    """Runs the verb that the arguments start with."""
    verb, rest = command.choose(COMMAND, VERBS, arguments)
    return verb(rest)


if __name__ == "__main__":
    command.run(main)

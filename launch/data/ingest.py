"""`launch.data ingest`: flags of a dataset of recordings, and the summary printed after the build."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from launch import command
from launch.command import Usage
from launch.data import runner

if TYPE_CHECKING:
    from data_pipelines.ingest.build import Report

COMMAND = "python -m launch.data ingest"
_ALIASES = {"num_processes": "hosts", "process_id": "host"}
"""Names of the same flags in JAX."""


def _define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("out", None, "the new dataset's directory or URL", flag_values=values)
    flags.DEFINE_list("inputs", [], "recordings, or folders of them, comma-separated; or plain arguments", flag_values=values)
    flags.DEFINE_string("licence", None, "licence of the recordings, stored in the manifest", flag_values=values)
    flags.DEFINE_string("name", None, "name of the dataset; default: the last part of --out", flag_values=values)
    flags.DEFINE_string("size", "64x64", "HEIGHTxWIDTH in pixels; frames are cropped to its aspect ratio", flag_values=values)
    flags.DEFINE_float("fps", 8.0, "frame rate of the dataset, Hz, at most that of the video", flag_values=values)
    flags.DEFINE_float("clip_seconds", 2.0, "length of a clip, s", flag_values=values)
    flags.DEFINE_list(
        "buckets", [], "instead of size, fps and clip_seconds: HEIGHTxWIDTH@HZxSECONDS, comma-separated", flag_values=values
    )
    flags.DEFINE_enum(
        "codec",
        "jpeg",
        ["jpeg", "h264", "array"],
        "codec of rgb; h264 takes a tenth of jpeg, array is lossless",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "frames_per_chunk",
        None,
        "frames per chunk, which are read together (see advise); default: at most 8",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_list("derive", [], "channels to compute from depth and cameras: normal, motion", flag_values=values)
    flags.DEFINE_string(
        "captions",
        None,
        '.json {"a.mp4": ["text", ...]}, or .jsonl of {"file": ..., "caption": ...}; a caption of one part has "start" '
        'and "end" in s (in .json as {"text": ..., "start": ..., "end": ...})',
        flag_values=values,
    )
    flags.DEFINE_string(
        "masks", None, "folder of instance masks: for a.mp4, FOLDER/a/*.png, a.npy, a.npz or a.mkv", flag_values=values
    )
    flags.DEFINE_float(
        "folder_fps", None, "frame rate of recordings without timestamps (folders, episodes), Hz", flag_values=values
    )
    flags.DEFINE_float("depth_unit", None, "unit of RGB-D depth, m, for example 0.001", flag_values=values)
    flags.DEFINE_list("intrinsics", None, "fx,fy,cx,cy of RGB-D frames, pixels", flag_values=values)
    flags.DEFINE_bool("allow_truncated", False, "keep the readable part of a truncated video", flag_values=values)
    flags.DEFINE_bool("allow_missing", False, "skip missing photos of a reconstruction", flag_values=values)
    flags.DEFINE_bool("shots", True, "cut at shot boundaries", flag_values=values)
    flags.DEFINE_float("min_sharpness", 0.0, "minimum sharpness of a clip (see inspect)", flag_values=values)
    flags.DEFINE_float("min_change", 0.0, "minimum change per second of a clip, grey levels out of 255", flag_values=values)
    flags.DEFINE_float("max_duplicates", 1.0, "maximum fraction of duplicate frames in a clip", flag_values=values)
    flags.DEFINE_bool("strict", False, "fail on unusable recordings instead of skipping them", flag_values=values)
    flags.DEFINE_integer("workers", 2, "number of processes", lower_bound=1, flag_values=values)
    runner.define_flags(values)
    flags.DEFINE_float("limit_s", 3600, "time limit of one recording, s; 0: none", flag_values=values)
    flags.DEFINE_integer("host", 0, "index of this host, when several build one dataset", lower_bound=0, flag_values=values)
    flags.DEFINE_integer("hosts", 1, "number of hosts that build the dataset", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("summary_lines", 20, "lines of each kind in the summary", lower_bound=1, flag_values=values)
    flags.DEFINE_bool("progress", True, "progress bars", flag_values=values)


def ingest(arguments: list[str]) -> int:
    """Cut real recordings (videos, frames, RGB-D, posed photos, robot episodes) into clips."""
    values = flags.FlagValues()
    _define_flags(values)
    rest = command.parse(COMMAND, values, arguments, ["out", "licence"], positional=True, aliases=_ALIASES)
    height, width = command.size(values.size)

    from data_pipelines.ingest.bucket import Bucket
    from data_pipelines.ingest.build import IngestOptions
    from data_pipelines.ingest.build import ingest as build
    from data_pipelines.ingest.caption import read_captions
    from data_pipelines.ingest.plan import Filters
    from data_pipelines.ingest.scan import ReaderOptions
    from data_pipelines.ingest.scheduler import Scheduler

    lens = None if values.intrinsics is None else tuple(_number(text, "--intrinsics") for text in values.intrinsics)
    buckets = [Bucket.parse(text) for text in values.buckets] or [Bucket(height, width, values.fps, values.clip_seconds)]
    options = IngestOptions(
        name=values.name or Path(values.out).name,
        licence=values.licence,
        buckets=buckets,
        codec=values.codec,
        frames_per_chunk=values.frames_per_chunk,
        derive=tuple(values.derive),
        captions=read_captions(values.captions) if values.captions else {},
        masks=values.masks,
        reader=ReaderOptions(values.folder_fps, values.allow_truncated, values.allow_missing, values.depth_unit, lens),
        filters=Filters(values.shots, values.min_sharpness, values.min_change, values.max_duplicates),
        strict=values.strict,
    )
    scheduler = Scheduler(values.workers, values.host, values.hosts, runner.runner(values), values.progress)
    report = build([*values.inputs, *rest], values.out, options, scheduler)
    _print_report(report, values.out, values.summary_lines)
    return 0


def _number(text: str, flag: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise Usage(f"{flag}: {text!r} is not a number") from error


def _print_report(report: "Report", out: str, most: int) -> None:
    """Print what was kept and what was left out, at most `most` lines of each kind, and the datasets."""
    sources = [source for manifest in report.manifests.values() for source in manifest["sources"]]
    for source in sources[:most]:
        long = f", {source['seconds_used']:.3f} of {source['seconds']:.3f} s" if source["seconds_used"] else ""
        print(f"{source['name']}: kept {source['clips']} clips{long}")
    if rest := sources[most:]:
        seconds = f"{sum(s['seconds_used'] for s in rest):.3f} of {sum(s['seconds'] for s in rest):.3f} s"
        print(f"and {len(rest)} more recordings: kept {sum(s['clips'] for s in rest)} clips, {seconds}")
    notes = Counter(note for source in sources for note in source["notes"])
    for note, count in notes.most_common(most):
        print(f"note on {count} recording{'s' * (count > 1)}: {note}")
    reasons = Counter(one.reason.split(":")[0] if one.start is not None else one.reason for one in report.rejected)
    for reason, count in reasons.most_common(most):
        first = next(one for one in report.rejected if one.reason.startswith(reason))
        print(f"left out: {first.name}" + (f" and {count - 1} more" if count > 1 else "") + f": {reason}")
    if len(reasons) > most:
        print(f"left out: {len(reasons) - most} more reasons")
    if report.rejected:
        whole = sum(one.start is None for one in report.rejected)
        print(f"left out in all: {whole} whole, {len(report.rejected) - whole} parts; rejected.jsonl lists them")
    for folder, manifest in report.manifests.items():
        path = f"{out}/{folder}" if folder else out
        print(f"{path}: {manifest['counts']['clips']} clips, {manifest['counts']['bytes'] / 2**20:.2f} MiB")

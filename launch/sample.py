"""The verbs of a trained world: python -m launch.sample imagine | render | perceive | describe | continue | rewind | edit.

    python -m launch.sample imagine --workdir=runs/quickstart --text="a red ball rolls behind a blue box" --out=core.json
    python -m launch.sample VERB --help                                          lists the flags of a verb

Cores and styles are JSON that reads back, videos are mp4. What is read is checked first, and everything is computed before
anything is written, whole or not at all.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from absl import flags

from launch import command, files
from launch.command import Usage

if TYPE_CHECKING:
    import numpy as np

    from wsm_jax.models.wave_bridge.style import Style
    from wsm_jax.snapshot import Waves
    from wsm_jax.world import World

COMMAND = "python -m launch.sample"

FLAGS: dict[str, tuple[Any, Any, str]] = {
    "workdir": (flags.DEFINE_string, None, "folder with the trained flows"),
    "text": (flags.DEFINE_string, None, "what the world shows"),
    "seconds": (flags.DEFINE_float, None, "length, s; without it, one window of the world flow"),
    "seed": (flags.DEFINE_integer, 0, "of the noise that sampling starts from"),
    "core": (flags.DEFINE_string, None, "core JSON to read"),
    "style": (flags.DEFINE_string, None, "style JSON to read; without it, a style from the prior"),
    "out": (flags.DEFINE_string, None, "file to write: core JSON"),
    "video": (flags.DEFINE_string, None, "mp4 to write as well"),
    "camera": (flags.DEFINE_string, "still", "still, or orbit: once around the scene"),
    "fps": (flags.DEFINE_float, 24.0, "frames a second"),
    "size": (flags.DEFINE_string, "256x256", "HEIGHTxWIDTH in pixels"),
    "channels": (flags.DEFINE_string, None, "mp4 to write as well: the frames and their estimated surface channels"),
    "folder_fps": (flags.DEFINE_float, None, "frames a second of a folder"),
    "allow_truncated": (flags.DEFINE_bool, False, "keep what is there of a video that ends early"),
    "keep": (flags.DEFINE_list, None, "slots that stay as they are, by comma"),
    "set": (flags.DEFINE_multi_string, [], "SLOT.FIELD=VALUE at all ticks, as 2.colour=0.1,0.2,0.9; repeatable"),
}
"""Name -> (kind, default, help)."""


def imagine(arguments: list[str]) -> None:
    """Text -> core, and a video of it."""
    values = _values("imagine", arguments, "workdir text out", "seconds seed video camera fps size")
    text, seconds, film = _text(values), _seconds(values), _film_settings(values)
    out, video = files.output(values.out, ".json", "--out"), _second_output(values, "video", ".mp4")
    world = files.open_world(values.workdir)
    files.check_text(world, text)
    files.check_size(world, film["size"])
    core = world.imagine(values.text, seconds, values.seed)
    frames = _film(world, core, None, values.seed, **film) if video else None
    files.write_core(core, out)
    if video and frames is not None:
        files.write_film(video, frames, film["fps"])


def render(arguments: list[str]) -> None:
    """Core -> video."""
    values = _values("render", arguments, "workdir core out", "style camera fps size seed", out="mp4 to write")
    out, film = files.output(values.out, ".mp4", "--out"), _film_settings(values)
    core, style = files.read_core(values.core), files.read_style(values.style)
    world = files.open_world(values.workdir)
    files.check_core(world, core, values.core)
    files.check_style(world, style, values.style)
    files.check_size(world, film["size"])
    files.write_film(out, _film(world, core, style, values.seed, **film), film["fps"])


def perceive(arguments: list[str]) -> None:
    """Video -> core, its style, and the estimated surface channels beside the frames."""
    values = _values(
        "perceive",
        arguments,
        "workdir video out",
        "style channels seconds fps folder_fps size allow_truncated",
        {"fps": None, "size": None},
        video="mp4, mov, webm, mkv, or a folder of jpg/png frames",
        style="style JSON to write as well",
        seconds="how much of the video to look at, s; without it, all",
        fps="frames a second to look at; without it 8, or the video's own rate where that is lower",
        size="HEIGHTxWIDTH that the frames are cropped and resized to; without it, as in training",
    )
    out, style_out = files.output(values.out, ".json", "--out"), _second_output(values, "style", ".json")
    channels, seconds = _second_output(values, "channels", ".mp4"), _seconds(values)
    size = None if values.size is None else command.size(values.size)
    if style_out == out:
        raise Usage(f"--out and --style are both {out}; needed two files")
    if channels and channels.exists() and channels.samefile(values.video):
        raise Usage(f"--channels={channels} is the video to look at; needed another file")

    from data_pipelines.recording.video import read_video, scan
    from wsm_jax.models.wave_bridge.style import to_json
    from wsm_jax.snapshot import TICK_HZ, WSV
    from wsm_jax.visualise.pictures import channel_grid

    how = {"fps": values.folder_fps, "allow_truncated": values.allow_truncated}
    hz = min(TICK_HZ, scan(values.video, until=seconds, **how).fps) if values.fps is None else _rate(values.fps)
    world = files.open_world(values.workdir)
    height, width = size or world.bridge.size
    video = read_video(values.video, hz, height, width, seconds, **how)
    if len(video.frame_time) < 2:
        raise ValueError(f"{values.video}: has 1 frame at {hz:g} Hz; needed at least 2: raise --fps or --seconds")
    seen = world.observe(video)
    beside = channel_grid(WSV({"rgb": video.channels["rgb"], **seen.channels}, video.frame_time)) if channels else None
    files.write_core(seen.core, out)
    if style_out:
        files.write_text(style_out, to_json(seen.style))
    if channels and beside is not None:
        files.write_film(channels, beside, hz)


def describe(arguments: list[str]) -> None:
    """Core -> text, on standard output."""
    values = _values("describe", arguments, "workdir core", "seed")
    core = files.read_core(values.core)
    world = files.open_world(values.workdir)
    files.check_core(world, core, values.core)
    print(world.describe(core, values.seed))


def continue_(arguments: list[str]) -> None:
    """Core -> the same core with more future."""
    told = "what happens next; without it, whatever the core leads to"
    values = _values("continue", arguments, "workdir core seconds out", "text seed", text=told, seconds="how much more, s")
    out, text = files.output(values.out, ".json", "--out"), _text(values)
    _seconds(values)
    core = files.read_core(values.core)
    world = files.open_world(values.workdir)
    files.check_core(world, core, values.core)
    files.check_text(world, text)
    files.write_core(world.continue_(core, values.seconds, text, values.seed), out)


def rewind(arguments: list[str]) -> None:
    """Core -> the same core with a past in front: what could have led to it."""
    values = _values("rewind", arguments, "workdir core seconds out", "seed", seconds="how much of a past, s")
    out = files.output(values.out, ".json", "--out")
    _seconds(values)
    core = files.read_core(values.core)
    world = files.open_world(values.workdir)
    files.check_core(world, core, values.core)
    files.write_core(world.rewind(core, values.seconds, values.seed), out)


def edit(arguments: list[str]) -> None:
    """Core -> a core with waves changed (--set), or with all but some waves sampled anew to fit a text (--keep, --text)."""
    values = _values("edit", arguments, "workdir core out", "keep text set seed")

    from wsm_jax.core.edit import text as core_edit

    try:
        edits = core_edit.parse(values["set"].value or ())
    except ValueError as error:
        raise Usage(f"--set={error}") from error
    text = _text(values)
    if text is None and values.keep is not None:
        raise Usage(f"{COMMAND} edit: --keep without --text; needed the text that the other waves are sampled to fit")
    if text is None and not edits:
        raise Usage(f"{COMMAND} edit: nothing to do; needed --set=SLOT.FIELD=VALUE, or --keep and --text")
    out, core = files.output(values.out, ".json", "--out"), files.read_core(values.core)
    keep = _slots(values.keep, core, values.core)
    lost = sorted({slot for slot, _, _ in edits} - set(keep)) if text is not None else []
    if lost:
        raise Usage(f"{COMMAND} edit: --set changes the slots {lost}, which are sampled anew; name them in --keep as well")
    try:
        core = core_edit.apply(core, edits, values.core)
    except ValueError as error:
        raise Usage(f"--set={error}") from error
    world = files.open_world(values.workdir)
    files.check_core(world, core, values.core)
    files.check_text(world, text)
    if text is not None:
        if core.presence.shape[0] > world.ticks:
            got = f"{values.core}: has {core.presence.shape[0]} ticks"
            raise ValueError(f"{got}; waves are sampled anew within one window, of at most {world.ticks}")
        core = world.edit(core, keep, text, values.seed)
    files.write_core(core, out)


VERBS: dict[str, command.Main] = {
    "imagine": imagine,
    "render": render,
    "perceive": perceive,
    "describe": describe,
    "continue": continue_,
    "rewind": rewind,
    "edit": edit,
}


def main(arguments: list[str]) -> int | None:
    """Runs the verb that the arguments start with."""
    verb, rest = command.choose(COMMAND, VERBS, arguments)
    return verb(rest)


# --- flags ---------------------------------------------------------------------------------------------------------------


def _values(
    verb: str,
    arguments: Sequence[str],
    needed: str,
    optional: str,
    defaults: Mapping[str, None] = MappingProxyType({}),
    **helps: str,
) -> flags.FlagValues:
    """The flags of a verb, of the table above; some with another default or help text."""
    values = flags.FlagValues()
    for name in (*needed.split(), *optional.split()):
        define, default, text = FLAGS[name]
        default = defaults.get(name, default)
        bound = {"lower_bound": 0} if name == "seed" else {}
        define(name, default, helps.get(name, text), flag_values=values, **bound)
    command.parse(f"{COMMAND} {verb}", values, arguments, needed.split())
    return values


def _text(values: flags.FlagValues) -> str | None:
    if values.text is not None and not values.text.strip():
        raise Usage(f"--text={values.text!r} is empty; needed a description such as 'a red ball rolls behind a blue box'")
    return values.text


def _seconds(values: flags.FlagValues) -> float | None:
    if values.seconds is not None and not 0 < values.seconds < math.inf:
        raise Usage(f"--seconds={values.seconds:g}; needed a time above 0")
    return values.seconds


def _rate(fps: float) -> float:
    if not 0 < fps <= 1000:
        raise Usage(f"--fps={fps:g}; needed frames a second above 0, at most 1000")
    return fps


def _second_output(values: flags.FlagValues, name: str, suffix: str) -> Path | None:
    path = values[name].value
    return None if path is None else files.output(path, suffix, f"--{name}")


def _film_settings(values: flags.FlagValues) -> dict[str, Any]:
    if values.camera not in ("still", "orbit"):
        raise Usage(f"--camera={values.camera}; needed still or orbit")
    return {"camera": values.camera, "fps": _rate(values.fps), "size": command.size(values.size)}


def _slots(texts: Sequence[str] | None, core: "Waves", path: str) -> list[int]:
    """The numbers of --keep. Raises Usage for what is no slot of the core."""
    texts = [text for text in texts or () if text]
    bad = [text for text in texts if not text.isdecimal() or int(text) >= core.count]
    if bad:
        raise Usage(f"--keep={','.join(texts)}: {', '.join(bad)}; {path} has the slots 0..{core.count - 1}")
    return [int(text) for text in texts]


def _film(
    world: "World", core: "Waves", style: "Style | None", seed: int, camera: str, fps: float, size: tuple[int, int]
) -> "np.ndarray":
    """The core as uint8 frames, over all its ticks."""
    from wsm_jax.snapshot import TICK_HZ, default_camera, default_orbit
    from wsm_jax.visualise.pictures import picture

    frames = int((core.presence.shape[0] - 1) / TICK_HZ * fps + 1e-6) + 1
    path = default_camera(frames) if camera == "still" else default_orbit(frames)
    return picture("rgb", world.render(core, path, fps, size, style, seed).channels["rgb"])


def cli() -> None:
    """Run the command line. Entry point of `wsm-sample`."""
    command.run(main)


if __name__ == "__main__":
    cli()

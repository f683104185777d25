"""`launch.data simulate`: flags of a simulated dataset."""

from absl import flags

from launch import command
from launch.command import Usage
from launch.data import runner

COMMAND = "python -m launch.data simulate"


def simulate(arguments: list[str]) -> int:
    """Simulate physical scenes with exact channels, core and captions."""
    values = flags.FlagValues()
    flags.DEFINE_string("out", None, "the new dataset's directory or URL", flag_values=values)
    flags.DEFINE_integer("scenes", None, "number of scenes, one clip each", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("seed", 0, "random seed; scene i depends only on (seed, i)", lower_bound=0, flag_values=values)
    flags.DEFINE_integer("first_scene", 0, "index of the first scene", lower_bound=0, flag_values=values)
    flags.DEFINE_string("size", "64x64", "HEIGHTxWIDTH in pixels, square", flag_values=values)
    flags.DEFINE_float("fps", 8.0, "frame rate, Hz", flag_values=values)
    flags.DEFINE_float("seconds", 3.0, "length of a clip, s", flag_values=values)
    flags.DEFINE_bool("pixels", True, "render frames; --nopixels writes only cores, cameras and captions", flag_values=values)
    flags.DEFINE_enum("renderer", "wsm", ["wsm", "mujoco"], "renderer; mujoco needs EGL or OSMesa", flag_values=values)
    flags.DEFINE_string("objects", "1-3", "MIN-MAX number of objects in a scene", flag_values=values)
    flags.DEFINE_float("screen", 0.4, "fraction of scenes with an occluding screen, 0..1", flag_values=values)
    flags.DEFINE_list(
        "stories",
        None,
        "kinds of story, comma-separated; default: all in which no wave appears or vanishes",
        flag_values=values,
    )
    flags.DEFINE_list("cameras", None, "kinds of camera path, comma-separated; default: all", flag_values=values)
    flags.DEFINE_integer("workers", 2, "number of processes", lower_bound=1, flag_values=values)
    runner.define_flags(values)
    flags.DEFINE_integer(
        "clips_per_shard", 16, "clips per shard, which are written together", lower_bound=1, flag_values=values
    )
    flags.DEFINE_integer(
        "frames_per_chunk",
        None,
        "frames per chunk, which are read together (see advise); default: one second",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_bool("progress", True, "progress bar", flag_values=values)
    command.parse(COMMAND, values, arguments, ["out", "scenes"])
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
        runner=runner.runner(values),
        progress=values.progress,
        **choices,
    )
    print(f"{values.out}: {manifest['counts']['clips']} clips, {manifest['counts']['bytes'] / 2**20:.2f} MiB")
    return 0


def _span(text: str, flag: str) -> tuple[int, int]:
    """MIN-MAX as two numbers, or one number as both. Raises Usage."""
    parts = text.split("-")
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise Usage(f"{flag}={text}; needed MIN-MAX, such as 1-3, or one number")
    return int(parts[0]), int(parts[-1])

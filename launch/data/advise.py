"""`launch.data advise`: the dataset layout that suits a training."""

from absl import flags

from launch import command
from launch.command import Usage

COMMAND = "python -m launch.data advise"


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
    rest = command.parse(COMMAND, values, arguments, others=True)
    if rest:
        raise Usage(f"{COMMAND}: got {rest}; it takes flags alone")
    height, width = command.size(values.size)

    from data_pipelines.loading import advice
    from launch.data.advice_table import table

    use = advice.Use(values.frames, height, width, values.bytes, values.arrays, values.codec, values.aligned)
    clips_s = values.batch / values.step_s / values.hosts
    print(table(use, values.stored_frames, clips_s, values.latency_ms, values.bandwidth))
    return 0

"""`launch.data advise`: recommend a dataset layout for a training run."""

from absl import flags

from launch import command

COMMAND = "python -m launch.data advise"


def advise(arguments: list[str]) -> int:
    """Print the best layout for a training run, the load of each host, and the assumptions."""
    values = flags.FlagValues()
    flags.DEFINE_integer("frames", 16, "frames of a training window", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("stored_frames", 64, "frames of a stored clip", lower_bound=1, flag_values=values)
    flags.DEFINE_string("size", "256x256", "HEIGHTxWIDTH of the frames, pixels", flag_values=values)
    flags.DEFINE_integer("bytes", 3, "raw bytes of a pixel, over all channels (rgb 3, depth 2, ...)", flag_values=values)
    flags.DEFINE_integer("arrays", 1, "number of arrays that a clip is read from", lower_bound=1, flag_values=values)
    flags.DEFINE_enum("codec", "zstd", ["none", "zstd", "jpeg", "h264"], "compression of the frames", flag_values=values)
    flags.DEFINE_bool("aligned", False, "windows start at chunk boundaries", flag_values=values)
    flags.DEFINE_integer("batch", 64, "clips in a global batch", lower_bound=1, flag_values=values)
    flags.DEFINE_float("step_s", 1.0, "seconds of a training step", lower_bound=1e-6, flag_values=values)
    flags.DEFINE_integer("hosts", 1, "number of hosts that load data", lower_bound=1, flag_values=values)
    flags.DEFINE_float("latency_ms", 0.1, "of a read, ms: 0.1 for a disk, 20 for a bucket", lower_bound=0.0, flag_values=values)
    flags.DEFINE_float("bandwidth", 1000.0, "bandwidth of one host, MiB/s", lower_bound=1e-3, flag_values=values)
    command.parse(COMMAND, values, arguments, aliases={"num_processes": "hosts"})
    height, width = command.size(values.size)

    from data_pipelines.loading import advice
    from launch.data.advice_table import table

    use = advice.Access(values.frames, height, width, values.bytes, values.arrays, values.codec, values.aligned)
    clips_s = values.batch / values.step_s / values.hosts
    print(table(use, values.stored_frames, clips_s, values.latency_ms, values.bandwidth))
    return 0

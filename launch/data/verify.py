"""`launch.data verify`: read every byte of a dataset and list its problems."""

from absl import flags

from launch.data.dataset_flag import parse_dataset

COMMAND = "python -m launch.data verify"


def verify(arguments: list[str]) -> int:
    """Read every byte of a dataset; print one line per problem, exit code 1 if there are any."""
    values = flags.FlagValues()
    flags.DEFINE_bool("progress", True, "progress bar", flag_values=values)
    path = parse_dataset(COMMAND, values, arguments)[0]

    from data_pipelines.wsv import verify as list_problems

    problems = list_problems(path, values.progress)
    for line in problems:
        print(line)
    if not problems:
        print(f"{path}: sound")
    return 1 if problems else 0

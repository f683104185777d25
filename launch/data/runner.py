"""Flags of the executor of a build: local processes, or an Apache Beam pipeline."""

import functools
import shlex
from typing import TYPE_CHECKING

from absl import flags

from launch.command import Usage

if TYPE_CHECKING:
    from data_pipelines.workers import Executor


def define_flags(values: flags.FlagValues) -> None:
    """Define --beam and --beam_options."""
    flags.DEFINE_bool("beam", False, "build in an Apache Beam pipeline instead of --workers processes", flag_values=values)
    flags.DEFINE_string(
        "beam_options", "", "options of Beam, such as '--runner=DataflowRunner --project=...'", flag_values=values
    )


def runner(values: flags.FlagValues) -> "Executor":
    """The executor that the flags choose. Raises Usage."""
    from data_pipelines import beam, workers

    if not values.beam:
        if values.beam_options:
            raise Usage(f"--beam_options={values.beam_options}: needed together with --beam")
        limit = values.limit_s if "limit_s" in values and values.limit_s else None
        return functools.partial(workers.run, limit_s=limit)
    try:
        return beam.runner(shlex.split(values.beam_options))
    except ModuleNotFoundError as error:
        raise Usage(f"--beam: {error}") from error
    except ValueError as error:
        raise Usage(f"--beam_options={values.beam_options}: {error}") from error

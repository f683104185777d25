"""Trains stages of an experiment in order, and writes the latents of each into its datasets."""

from collections.abc import Sequence
from pathlib import Path

from data_pipelines.loading.encode import encode_datasets
from wsm_jax.config import Config
from wsm_jax.runtime.checkpoint import restore_params
from wsm_jax.runtime.fingerprint import checksum
from wsm_jax.training.experiment import Experiment, run_stage
from wsm_jax.visualise.video import write_video


def train_stages(experiment: Experiment, config: Config, names: Sequence[str], workdir: Path, progress: bool = True) -> None:
    """Trains the stages, each from its newest checkpoint. Raises what the training and the data raise."""
    for name in names:
        run_stage(experiment, config, name, workdir, write_video, progress)
        if experiment.stages[name].encode:
            encode_stage(experiment, name, workdir, (), progress)


def encode_stage(
    experiment: Experiment, name: str, workdir: Path, datasets: Sequence[str], progress: bool = True
) -> dict[str, str]:
    """Writes the latents of a trained stage into datasets; returns dataset -> "written", or why it has none.

    Without datasets they are those that the stage names. The latents are named for the weights, so those of another training
    stay beside them. Raises ValueError for a stage without an encoder, FileNotFoundError where there is no checkpoint or no
    dataset.
    """
    encoder = experiment.stages[name].encoder
    if encoder is None:
        raise ValueError(f"stage {name!r} of {experiment.name!r} has no encoder; set stages.{name}.encoder in the experiment")
    params, _ = restore_params(workdir / name)
    paths = datasets or experiment.stages[name].encode
    return encode_datasets(workdir, name, paths, encoder, params, f"{checksum(params):08x}", progress)

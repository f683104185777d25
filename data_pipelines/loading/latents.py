"""Latents beside the clips of a mixture: which name the codes of a stage have in its datasets, and the codes of each dataset.

A stage's folder in the workdir holds latents.json, which the encode command writes:

    {key: {"name": name of the latents in the datasets, "datasets": {absolute path or URL: "written", or why not}}}
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from data_pipelines.loading.source import resolve
from data_pipelines.wsv import Dataset
from wsm_jax.files import write_file
from wsm_jax.typing import Shaped

POINTER = "latents.json"
WRITTEN = "written"
"""Value of a dataset that has the latents; any other value is the reason why it has none."""


@dataclasses.dataclass(frozen=True)
class LatentPointer:
    """One key of latents.json."""

    name: str
    datasets: Mapping[str, str]
    """Absolute path or URL -> WRITTEN, or why the dataset has none."""


def write_pointer(stage: str | Path, pointers: Mapping[str, LatentPointer]) -> None:
    """Write latents.json of a stage's folder, atomically; keys that are there already and not given stay. Raises OSError.

    Raises ValueError for a latents.json that is there and damaged.
    """
    rows = {**_load(Path(stage) / POINTER), **pointers}
    data = {
        key: {"name": row.name, "datasets": {resolve(path, "."): said for path, said in row.datasets.items()}}
        for key, row in rows.items()
    }
    write_file(Path(stage) / POINTER, json.dumps(data, indent=1, sort_keys=True) + "\n")


def read_pointer(stage: str | Path, key: str) -> LatentPointer | None:
    """The row of a key in latents.json of a stage's folder; None where there is none. Raises ValueError for a damaged file."""
    return _load(Path(stage) / POINTER).get(key)


def _load(path: Path) -> dict[str, LatentPointer]:
    if not path.exists():
        return {}
    try:
        data = json.loads(path.read_bytes())
        return {key: LatentPointer(str(row["name"]), dict(row["datasets"])) for key, row in data.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: damaged ({error!r}); delete it and encode again") from error


def open_latents(
    workdir: str | Path, key: str, stage: str, shape: tuple[int, ...], datasets: Sequence[Dataset]
) -> list[Shaped[np.ndarray, "n ..."] | None]:
    """The codes [clips *shape] of each dataset; None for a dataset that has none, for a reason that latents.json gives.

    Raises FileNotFoundError without latents.json, ValueError for a key or dataset that it lacks, and for codes that are gone,
    damaged or of another shape. The messages name the command that encodes.
    """
    path = Path(workdir) / stage / POINTER
    again = f"run python -m launch.data encode --workdir={workdir} --stage={stage}"
    if not path.exists():
        raise FileNotFoundError(f"{path}: missing, so no dataset has latents {key!r}; {again}")
    pointer = read_pointer(path.parent, key)
    if pointer is None:
        raise ValueError(f"{path}: no latents {key!r}; {again}")
    opened = []
    for dataset in datasets:
        where = dataset.folder.path
        said = pointer.datasets.get(where)
        if said is None:
            raise ValueError(f"{path}: {where} is not encoded for latents {key!r}; {again}")
        values = dataset.latents(pointer.name) if said == WRITTEN else None
        if said == WRITTEN and values is None:
            raise ValueError(f"{where}: no latents {pointer.name!r}, though {path} says that they were written; {again}")
        if values is not None and values.shape[1:] != shape:
            found, asked = list(values.shape[1:]), list(shape)
            raise ValueError(f"{where}: latents {pointer.name!r} are {found} a clip, the clips ask for {asked}")
        opened.append(values)
    return opened

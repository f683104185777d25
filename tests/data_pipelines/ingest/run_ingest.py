"""`ingest` for tests: the fields of both of its option classes as keyword arguments."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from data_pipelines.ingest.build import IngestOptions, Report, ingest
from data_pipelines.ingest.scheduler import Scheduler

_SCHEDULER = {field.name for field in dataclasses.fields(Scheduler)}


def run_ingest(inputs: Sequence[str | Path], out: str | Path, **fields) -> Report:
    scheduler = {name: value for name, value in fields.items() if name in _SCHEDULER}
    options = {name: value for name, value in fields.items() if name not in _SCHEDULER}
    return ingest(inputs, out, IngestOptions(**options), Scheduler(**scheduler))

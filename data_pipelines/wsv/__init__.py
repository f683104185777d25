"""WSV on disk: write a dataset shard by shard, read it clip by clip, verify it. See `manifest.py` for the files."""

from data_pipelines.wsv.dataset import Dataset
from data_pipelines.wsv.latents import write_latents
from data_pipelines.wsv.manifest import SCHEMA_VERSION, Layout
from data_pipelines.wsv.repair import repair
from data_pipelines.wsv.verify import verify
from data_pipelines.wsv.writer import Writer, create, finished

__all__ = ["SCHEMA_VERSION", "Dataset", "Layout", "Writer", "create", "finished", "repair", "verify", "write_latents"]

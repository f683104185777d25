"""Several datasets in one folder, which go by one name: what buckets and kinds of recordings make of one build."""

import json
from collections.abc import Mapping
from typing import Any

from data_pipelines.wsv import manifest as records
from data_pipelines.wsv.folder import Folder

COLLECTION = "collection.json"


def write(folder: Folder, name: str, clips: Mapping[str, int]) -> None:
    """Writes collection.json: the folder of each dataset, and how many clips it has."""
    parts = [{"path": path, "clips": count} for path, count in sorted(clips.items())]
    value = {"format": "wsm_collection", "schema_version": records.SCHEMA_VERSION, "name": name, "datasets": parts}
    folder.write({COLLECTION: records.dumps(value, indent=1)})


def datasets(folder: Folder) -> list[str]:
    """The paths of the datasets of a folder: its own where it is one, else those of its collection.

    Raises ValueError for a collection that is damaged.
    """
    raw = folder.read(COLLECTION)
    if raw is None:
        return [folder.path]
    try:
        value: Any = json.loads(raw)
        return [f"{folder.path}/{part['path']}" for part in value["datasets"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder.name(COLLECTION)}: damaged ({error}); restore it, or name a dataset below it") from error

"""Several datasets in one folder, which go by one name: what buckets and kinds of recordings make of one build."""

import json
from collections.abc import Mapping
from typing import Any

from data_pipelines.wsv import manifest as records
from data_pipelines.wsv.folder import Folder

COLLECTION, FORMAT = "collection.json", "wsm_collection"


def write(folder: Folder, name: str, clips: Mapping[str, int]) -> None:
    """Writes collection.json: the folder of each dataset, and how many clips it has."""
    parts = [{"path": path, "clips": count} for path, count in sorted(clips.items())]
    value = {"format": FORMAT, "schema_version": records.SCHEMA_VERSION, "name": name, "datasets": parts}
    folder.write({COLLECTION: records.dumps(value, indent=1)})


def datasets(folder: Folder) -> list[str]:
    """The paths of the datasets of a folder: its own where it is one, else those of its collection.

    Raises ValueError for a collection that is damaged, or of a later version.
    """
    raw = None if folder.read(records.MANIFEST) is not None else folder.read(COLLECTION)
    if raw is None:
        return [folder.path]
    try:
        value: Any = json.loads(raw)
        if value["format"] != FORMAT:
            raise ValueError(f'"format": {value["format"]!r}')
        if value["schema_version"] > records.SCHEMA_VERSION:
            text = f"{folder.name(COLLECTION)}: schema version {value['schema_version']}, this release reads up to version "
            raise records.NewerSchema(f"{text}{records.SCHEMA_VERSION}; update wsm_jax")
        return [f"{folder.path}/{part['path']}" for part in value["datasets"]]
    except records.NewerSchema:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder.name(COLLECTION)}: damaged ({error}); restore it, or name a dataset below it") from error

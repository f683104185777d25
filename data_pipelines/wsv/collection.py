"""Several datasets in one folder under one name: an ingest build makes one for each bucket and kind of recording."""

import json
from collections.abc import Mapping
from typing import Any

from data_pipelines.wsv import manifest as records
from data_pipelines.wsv.folder import Folder

COLLECTION, FORMAT = "collection.json", "wsm_collection"


def write(folder: Folder, name: str, clips: Mapping[str, int]) -> None:
    """Writes collection.json: the folder of each dataset and its number of clips; sealed like a manifest. Raises OSError."""
    parts = [{"path": path, "clips": count} for path, count in sorted(clips.items())]
    value = {"format": FORMAT, "schema_version": records.SCHEMA_VERSION, "name": name, "datasets": parts}
    folder.write({COLLECTION: records.seal(value)})


def load(folder: Folder) -> dict[str, int] | None:
    """Dataset folder -> number of clips of a collection; None for a folder that is no collection.

    Raises ValueError for a collection that is damaged, NewerSchema (a ValueError) for one of a later version.
    """
    raw = folder.read(COLLECTION)
    if raw is None:
        return None
    try:
        value: Any = json.loads(raw)
        if value["format"] != FORMAT:
            raise ValueError(f'"format": {value["format"]!r}')
        if value["schema_version"] > records.SCHEMA_VERSION:
            text = f"{folder.name(COLLECTION)}: schema version {value['schema_version']}, this release reads up to version "
            raise records.NewerSchema(f"{text}{records.SCHEMA_VERSION}; update wsm_jax")
        if not records.matches_seal(raw):
            raise ValueError("its checksum does not match")
        return {str(part["path"]): int(part["clips"]) for part in value["datasets"]}
    except records.NewerSchema:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder.name(COLLECTION)}: damaged ({error}); repair it, or name a dataset below it") from error


def datasets(folder: Folder) -> list[str]:
    """The paths of the datasets of a folder: its own if it is a dataset, else those of its collection.

    Raises ValueError for a collection that is damaged, or of a later version.
    """
    found = None if folder.read(records.MANIFEST) is not None else load(folder)
    return [folder.path] if found is None else [f"{folder.path}/{path}" for path in found]


def below(folder: Folder) -> list[str]:
    """The direct subfolders that hold a dataset, finished or not, whether or not the collection lists them."""
    parts = [key.split("/") for key in folder.list()]
    return sorted({part[0] for part in parts if len(part) == 2 and part[1] in (records.MANIFEST, records.BUILD)})


def damaged(folder: Folder) -> bool:
    """True if collection.json is missing or damaged."""
    try:
        return load(folder) is None
    except ValueError:
        return True


def restore(folder: Folder) -> str:
    """Rebuilds a damaged or missing collection.json from the datasets below; returns a line that says the result."""
    key, clips, names = folder.name(COLLECTION), {}, set()
    for path in below(folder):
        try:
            manifest = records.load(Folder(f"{folder.path}/{path}"))
        except (ValueError, FileNotFoundError) as error:
            return f"{key}: cannot be rebuilt: {error}"
        clips[path] = manifest["counts"]["clips"]
        names.add(manifest["name"].removesuffix(f"/{path}"))
    if len(names) != 1:
        return f"{key}: cannot be rebuilt: the datasets below are of {len(names)} collections ({', '.join(sorted(names))})"
    write(folder, names.pop(), clips)
    return f"{key}: rebuilt, by the {len(clips)} datasets that are there"

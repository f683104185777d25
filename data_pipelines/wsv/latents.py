"""Latents: codes of a trained model, one array a name, written into a finished dataset without touching its clips.

    latents/<name>.<digest>.npy   the values [clips ...], float16 or float32; the digest begins their sha256
    latents/<name>.json           the row of the manifest, from which a damaged manifest is rebuilt

The manifest lists both files and is replaced last, so a reader sees a whole array or none.
"""

import hashlib
import io
import json
import re
from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np

from data_pipelines.wsv import manifest as records
from data_pipelines.wsv.folder import Folder

KEY = "latents"
"""Key of the manifest, and the folder of the files."""
DTYPES = ("float16", "float32")
_TRIES = 8
"""Times that a manifest which another process replaces meanwhile is read again."""


def record_file(name: str) -> str:
    """The file that holds the row of the manifest."""
    return f"{KEY}/{name}.json"


def write_latents(
    path: str | PathLike, name: str, values: np.ndarray, provenance: Mapping[str, Any], *, overwrite: bool = False
) -> None:
    """Write codes [clips ...] of a finished dataset under a name; `provenance`, as JSON, says what made them.

    The same name with the same bytes changes nothing.
    Raises ValueError for values of another dtype, length or not finite, a name that is no file name, other bytes under the
    name without `overwrite`; FileNotFoundError without a dataset; OSError when the disk is full.
    """
    folder = Folder(path)
    for _ in range(_TRIES):
        manifest, raw = records.load(folder), folder.read(records.MANIFEST) or b""
        data = _encode(folder, manifest, name, values)
        row = _row(name, values, data, provenance)
        before = manifest.get(KEY, {}).get(name)
        if before is not None and before["sha256"] == row["sha256"]:
            row = before
        elif before is not None and not overwrite:
            raise ValueError(
                f"{folder.name(before['file'])}: latents {name!r} are there with other bytes, of {before['provenance']}; "
                "choose another name, or overwrite=True"
            )
        files = {row["file"]: data, record_file(name): records.dumps(row, indent=1)}
        folder.write({key: value for key, value in files.items() if folder.read(key) != value})
        sealed = _sealed(manifest, name, row)
        if sealed == raw or folder.replace(records.MANIFEST, sealed, raw):
            if before is not None and before["file"] != row["file"]:
                folder.remove(before["file"])
            return
    raise OSError(f"{folder.name(records.MANIFEST)}: other processes replace it all the time; run the same command again")


def _encode(folder: Folder, manifest: dict[str, Any], name: str, values: np.ndarray) -> bytes:
    """The bytes of the .npy file. Raises ValueError for what cannot be stored."""
    clips = manifest["layout"]["clips"]
    if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
        raise ValueError(f"{folder.path}: latents {name!r}; needed a name of letters, digits, _, - and .")
    if values.dtype.name not in DTYPES or values.ndim < 2 or len(values) != clips or not values.size:
        raise ValueError(
            f"{folder.path}: latents {name!r} are {values.dtype} {list(values.shape)}; needed {' or '.join(DTYPES)} with a row "
            f"for each of {clips} clips"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"{folder.path}: latents {name!r} hold a value that is not finite")
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False)))
    return buffer.getvalue()


def _row(name: str, values: np.ndarray, data: bytes, provenance: Mapping[str, Any]) -> dict[str, Any]:
    digest = records.sha256(data)
    return {
        "file": f"{KEY}/{name}.{digest[:16]}.npy",
        "bytes": len(data),
        "sha256": digest,
        "dtype": values.dtype.name,
        "shape": list(values.shape),
        "provenance": json.loads(records.dumps(dict(provenance))),
    }


def _sealed(manifest: dict[str, Any], name: str, row: dict[str, Any]) -> bytes:
    """The manifest with a row more."""
    rows = manifest.get(KEY, {})
    gone = rows[name]["file"] if name in rows else ""
    files = {key: value for key, value in manifest["files"].items() if key != gone}
    return records.seal(listed({**manifest, "files": files}, {**rows, name: row}))


def listed(manifest: dict[str, Any], rows: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """A manifest with latents of these rows; its files list no others."""
    if not rows:
        return manifest
    files = dict(manifest["files"])
    for name, row in rows.items():
        record = records.dumps(row, indent=1)
        files[row["file"]] = {"bytes": row["bytes"], "sha256": row["sha256"]}
        files[record_file(name)] = {"bytes": len(record), "sha256": records.sha256(record)}
    size = sum(value["bytes"] for value in files.values())
    counts = {**manifest["counts"], "files": len(files), "bytes": size}
    return {**manifest, KEY: dict(rows), "counts": counts, "files": files}


def load_records(folder: Folder) -> dict[str, dict[str, Any]]:
    """The rows in the files of a dataset, by name. Raises ValueError for a damaged one."""
    rows = {}
    for key in sorted(key for key in folder.list(f"{KEY}/") if key.endswith(".json")):
        raw = folder.read(key) or b""
        try:
            row = json.loads(raw)
            sound = records.dumps(row, indent=1) == raw and isinstance(row["file"], str)
        except (ValueError, KeyError, TypeError):
            sound, row = False, {}
        if not sound:
            raise ValueError(f"{folder.name(key)}: damaged; delete it, and write the latents again")
        rows[key.removeprefix(f"{KEY}/").removesuffix(".json")] = row
    return rows


def read(folder: Folder, manifest: dict[str, Any], name: str) -> np.ndarray | None:
    """The codes [clips ...] of a name, mapped from a disk or read from a bucket; None where the dataset has no such name.

    Raises ValueError naming a file that is damaged, OSError naming one that cannot be read.
    """
    row = manifest.get(KEY, {}).get(name)
    if row is None:
        return None
    file = folder.name(row["file"])
    if folder.local:
        with open(file, "rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        source: Any = file
    else:
        data = folder.read(row["file"]) or b""
        digest, source = records.sha256(data), io.BytesIO(data)
    if digest != row["sha256"]:
        raise ValueError(f"{file}: damaged or missing; write the latents {name!r} again with overwrite")
    values = np.load(source, mmap_mode="r" if folder.local else None, allow_pickle=False)
    values.flags.writeable = False
    return values

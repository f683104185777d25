"""Whether every byte of a WSV dataset is the one that was written."""

from os import PathLike

from tqdm import tqdm

from data_pipelines.wsv import manifest as records
from data_pipelines.wsv.folder import Folder


def verify(path: str | PathLike, progress: bool = True) -> list[str]:
    """Reads every byte; one line a problem: missing, truncated, changed, not of the dataset, miscounted. Empty: sound.

    Raises FileNotFoundError when there is no dataset at all, NewerSchema (a ValueError) for one of a later version.
    """
    folder = Folder(path)
    try:
        manifest = records.load(folder)
    except records.NewerSchema:
        raise
    except ValueError as error:
        return [str(error)]
    layout, files = records.layout_of(manifest), manifest["files"]
    extra = folder.list() - set(files) - {records.MANIFEST}
    problems = [f"{folder.name(key)}: extra, not a file of the dataset" for key in sorted(extra)]
    lines = {records.text_file(shard): len(layout.span(shard)) for shard in range(layout.shards)}
    for key in tqdm(sorted(files), desc=f"verify {manifest['name']}", unit="file", disable=not progress):
        data, size = folder.read(key), files[key]["bytes"]
        problem = None
        if data is None:
            problem = "missing"
        elif len(data) != size:
            problem = f"{'truncated' if len(data) < size else 'too long'}, {len(data)} bytes, needed {size}"
        elif records.sha256(data) != files[key]["sha256"]:
            problem = "changed, its checksum does not match"
        elif key in lines and len(data.splitlines()) != lines[key]:
            problem = f"{len(data.splitlines())} lines for {lines[key]} clips"
        if problem:
            problems.append(f"{folder.name(key)}: {problem}")
    if manifest["counts"]["clips"] != layout.clips:
        problems.append(f"{folder.path}: the shards count {manifest['counts']['clips']} clips, the layout {layout.clips}")
    return problems

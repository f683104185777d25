"""`launch.data repair`: rebuild damaged files of a dataset from its build parameters, or from its recordings."""

from typing import TYPE_CHECKING, Any

from absl import flags

from launch.command import Usage
from launch.data.dataset_flag import parse_dataset

if TYPE_CHECKING:
    from data_pipelines.ingest.caption import Cue

COMMAND = "python -m launch.data repair"


def repair(arguments: list[str]) -> int:
    """Rebuild damaged files of a dataset; one that was ingested needs its recordings, as the arguments after it."""
    values = flags.FlagValues()
    flags.DEFINE_list(
        "inputs", [], "its recordings, or folders of them, comma-separated; or plain arguments", flag_values=values
    )
    flags.DEFINE_string("captions", None, "caption file that was given to ingest, if text is damaged", flag_values=values)
    flags.DEFINE_string("masks", None, "folder of masks that was given to ingest", flag_values=values)
    flags.DEFINE_integer("workers", 2, "number of processes", lower_bound=1, flag_values=values)
    flags.DEFINE_bool("progress", True, "progress bars", flag_values=values)
    path, rest = parse_dataset(COMMAND, values, arguments, "RECORDING")

    from data_pipelines.ingest.caption import read_captions
    from data_pipelines.wsv import collection
    from data_pipelines.wsv import repair as repair_dataset
    from data_pipelines.wsv import verify as list_problems
    from data_pipelines.wsv.folder import Folder
    from data_pipelines.wsv.repair import head

    inputs, texts = [*values.inputs, *rest], read_captions(values.captions) if values.captions else {}
    root = Folder(path)
    members = [] if head(root.path) else [root.name(part) for part in collection.below(root)]
    scanned: dict[Any, Any] = {}
    builders = {path: _builder(path, inputs, texts, scanned, values.masks) for path in members or [root.path]}
    refused = [builder.refused for builder, _ in builders.values() if hasattr(builder, "refused")]
    if inputs and not refused:
        raise Usage(f"{COMMAND}: {root.path} is no dataset that was built from recordings; got {', '.join(map(str, inputs))}")
    for name in sorted(set.intersection(*map(set, refused)) if refused else ()):
        print(refused[0][name])
    for path, (builder, options) in builders.items():
        for line in repair_dataset(path, builder, values.progress, workers=values.workers, **options):
            print(line)
    if members and collection.damaged(root):
        print(collection.restore(root))
    problems = list_problems(root.path, values.progress)
    print(f"{root.path}: {f'{len(problems)} problems remain' if problems else 'sound'}")
    return 1 if problems else 0


def _builder(
    path: str, inputs: list[str], texts: "dict[str, list[str | Cue]]", scanned: dict[Any, Any], masks: str | None
) -> tuple[Any, dict[str, Any]]:
    """The builder that regenerates the clips of a dataset, or None, and the arguments of `wsv.repair` that it needs."""
    from data_pipelines.ingest.remake import remake
    from data_pipelines.simulation.simulate import maker
    from data_pipelines.wsv.repair import head

    manifest = head(path)
    build = manifest["build"] if manifest else {}
    try:
        if manifest and build.get("command") == "simulate":
            simulated = maker(manifest)
            return simulated, {"environment": simulated.environment}
        if manifest and build.get("verb") == "ingest":
            cut = remake(path, manifest, inputs, texts, scanned, masks)
            return cut, {"attached": cut.attached if inputs else None}
    except ValueError as error:
        print(error)
    return None, {}

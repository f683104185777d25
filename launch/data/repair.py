"""`launch.data repair`: rebuild damaged files from the recipe of the dataset, or from its recordings."""

from typing import TYPE_CHECKING, Any

from absl import flags

from launch.command import Usage
from launch.data.dataset_flag import parse_dataset

if TYPE_CHECKING:
    from data_pipelines.ingest.caption import Cue

COMMAND = "python -m launch.data repair"


def repair(arguments: list[str]) -> int:
    """Rebuild damaged files of a dataset: of its recipe, or of its recordings, which are given again as plain arguments."""
    values = flags.FlagValues()
    flags.DEFINE_list("inputs", [], "its recordings, or folders of some, by comma; also as plain arguments", flag_values=values)
    flags.DEFINE_string("captions", None, "those that were given to ingest, where text is damaged", flag_values=values)
    flags.DEFINE_string("masks", None, "the folder of masks that was given to ingest", flag_values=values)
    flags.DEFINE_integer("workers", 2, "processes", lower_bound=1, flag_values=values)
    flags.DEFINE_bool("progress", True, "progress bars", flag_values=values)
    path, rest = parse_dataset(COMMAND, values, arguments, others=True)

    from data_pipelines.ingest import caption
    from data_pipelines.wsv import collection
    from data_pipelines.wsv import repair as mend
    from data_pipelines.wsv import verify as problems_of
    from data_pipelines.wsv.folder import Folder
    from data_pipelines.wsv.repair import head

    inputs, texts = [*values.inputs, *rest], caption.read(values.captions) if values.captions else {}
    root = Folder(path)
    several = [] if head(root.path) else [root.name(part) for part in collection.below(root)]
    seen: dict[Any, Any] = {}
    makers = {path: _maker(path, inputs, texts, seen, values.masks) for path in several or [root.path]}
    refused = [maker.refused for maker, _ in makers.values() if hasattr(maker, "refused")]
    if inputs and not refused:
        raise Usage(f"{COMMAND}: {root.path} is not made of recordings; got {', '.join(map(str, inputs))}")
    for name in sorted(set.intersection(*map(set, refused)) if refused else ()):
        print(refused[0][name])
    for path, (maker, more) in makers.items():
        for line in mend(path, maker, values.progress, workers=values.workers, **more):
            print(line)
    if several and collection.damaged(root):
        print(collection.restore(root))
    problems = problems_of(root.path, values.progress)
    print(f"{root.path}: {f'{len(problems)} problems are left' if problems else 'sound'}")
    return 1 if problems else 0


def _maker(
    path: str, inputs: list[str], texts: "dict[str, list[str | Cue]]", seen: dict[Any, Any], masks: str | None
) -> tuple[Any, dict[str, Any]]:
    """What makes the clips of a dataset again (None: nothing does), and the arguments of `wsv.repair` that go with it."""
    from data_pipelines.ingest.remake import remake
    from data_pipelines.simulation.simulate import maker
    from data_pipelines.wsv.repair import head

    known = head(path)
    build = known["build"] if known else {}
    try:
        if known and build.get("command") == "simulate":
            simulated = maker(known)
            return simulated, {"environment": simulated.environment}
        if known and build.get("verb") == "ingest":
            cut = remake(path, known, inputs, texts, seen, masks)
            return cut, {"attached": cut.attached if inputs else None}
    except ValueError as error:
        print(error)
    return None, {}

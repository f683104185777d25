"""Text about a conversion: what a scene consists of, and how well the converted one agrees with it."""

from pathlib import Path

from wsm_jax.core.exchange import comparison, scene_file
from wsm_jax.core.exchange.conversion import Options, Representation, convert, form
from wsm_jax.core.exchange.points import PointCloud
from wsm_jax.core.exchange.splats import Splats
from wsm_jax.core.mesh import Mesh
from wsm_jax.snapshot import Waves


def describe(thing: Representation) -> str:
    """Number and kind of the elements of a scene."""
    match thing:
        case Waves():
            return f"{thing.count} waves"
        case Mesh():
            return f"{len(thing.vertices)} vertices, {len(thing.faces)} faces"
        case PointCloud():
            return f"{len(thing.points)} points"
        case Splats():
            return f"{len(thing.means)} splats"
    return f"{'x'.join(map(str, thing.values.shape))} cells of {thing.spacing:.4g} m ({thing.kind})"


def agreement(before: Representation, made: Representation, target: Path, options: Options, cells: int) -> str:
    """Chamfer-L1 and IoU between a scene and its conversion, read back from `target` where its suffix can be read.

    `cells` is the resolution of the IoU. Raises ValueError or OSError for a file that cannot be read back.
    """
    if target.suffix.lower() in scene_file.READS and target.suffix.lower() != ".npy":
        after, compared = scene_file.read(target), "the file read back"
    else:
        after, compared = convert(made, "mesh", options) if form(made) == "waves" else made, "the scene as written"
    distance = comparison.chamfer(before, after, options)
    floor, samplings = comparison.spread(before, options)
    overlap = comparison.iou(before, after, options, cells)
    solid = f"IoU({cells}) {overlap:.4f}" if overlap is not None else "IoU: one of them is not a solid"
    context = f"({samplings} are {1e3 * floor:.4g} mm apart; at most {comparison.SAMPLES} points of each)"
    return f"Chamfer-L1 {1e3 * distance:.4g} mm {context}; {solid}; compared: {compared}"

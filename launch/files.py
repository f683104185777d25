"""Files that the verbs of a world read and write: checked before any work is done, written atomically."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from launch.command import Usage
from wsm_jax.files import write_file

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from wsm_jax.models.wave_bridge.style import Style
    from wsm_jax.snapshot import Waves
    from wsm_jax.world import World


def output(path: str, suffix: str, flag: str) -> Path:
    """A file that can be written. Raises Usage or FileNotFoundError, naming the flag."""
    out = Path(path)
    if out.suffix.lower() != suffix:
        raise Usage(f"{flag}={path}; needed a name that ends in {suffix}")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{flag}={path}: {out.parent} is no folder; make it first")
    if out.is_dir():
        raise Usage(f"{flag}={path}: is a folder; needed the name of a file")
    return out


def open_world(workdir: str) -> "World":
    """The trained world. Raises FileNotFoundError or ValueError, naming the path."""
    path = Path(workdir)
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such workdir; train one with python -m launch.train")

    from wsm_jax.runtime.compiler import keep_compilations
    from wsm_jax.world import World

    keep_compilations(path)
    return World.load(path)


def read_core(path: str) -> "Waves":
    """A core over time. Raises FileNotFoundError or ValueError, naming the path."""
    import numpy as np

    from wsm_jax.snapshot import TICK_HZ, waves

    core, time = waves.load(path)
    if core.presence.ndim != 2 or 0 in core.presence.shape:
        raise ValueError(f"{path}: its presence has the shape {core.presence.shape}; needed (ticks, waves), none of them 0")
    if time is not None and not np.allclose(np.diff(time), 1 / TICK_HZ, atol=1e-3):
        raise ValueError(f"{path}: its ticks are not 1/{TICK_HZ:g} s apart; needed a core at {TICK_HZ:g} ticks a second")
    return core


def read_style(path: str | None) -> "Style | None":
    """A style; None without a path. Raises FileNotFoundError or ValueError, naming the path."""
    from wsm_jax.models.wave_bridge import style

    return None if path is None else style.load(path)


def check_text(world: "World", text: str | None) -> None:
    """Raises Usage for a text that is longer than this world's texts."""
    if text is None:
        return
    try:
        world.tokenizer.encode(text)
    except ValueError as error:
        raise Usage(f"--text: {error}") from error


def check_core(world: "World", core: "Waves", path: str) -> None:
    """Raises ValueError for a core with another number of slots than this world has."""
    slots = world.bridge.layout.waves
    if core.count != slots:
        raise ValueError(f"{path}: a core with {core.count} slots; this world was trained with {slots}")


def check_style(world: "World", style: "Style | None", path: str) -> None:
    """Raises ValueError for a style with codes of other shapes than this world has."""
    layout = world.bridge.layout
    wanted = (layout.waves, layout.wave_code), (layout.scene_code,)
    if style is not None and (style.waves.shape, style.scene.shape) != wanted:
        raise ValueError(f"{path}: codes of shapes {style.waves.shape} and {style.scene.shape}; this world needs {wanted}")


def check_size(world: "World", size: tuple[int, int]) -> None:
    """Raises Usage for a (height, width) with fewer rows of pixels than this world has rows of tokens."""
    rows = world.bridge.network.rows
    if size[0] < rows:
        raise Usage(f"--size={size[0]}x{size[1]}; this world draws pictures of at least {rows} pixels in height")


def write_core(core: "Waves", out: Path) -> None:
    """Core JSON with tick times from 0, and a line that says what it holds."""
    import numpy as np

    from wsm_jax.snapshot import TICK_HZ, waves

    ticks = core.presence.shape[0]
    waves.save(core, out, np.arange(ticks) / TICK_HZ)
    present = int((np.asarray(core.presence) >= 0.5).any(0).sum())
    print(f"{out}: {ticks} ticks ({ticks / TICK_HZ:g} s), {present} of {core.count} slots filled")


def write_film(out: Path, frames: "np.ndarray", fps: float) -> None:
    """uint8 frames [T H W 3] as mp4, and a line that says how long it is."""
    from wsm_jax.visualise.video import write_video

    write_video(out, frames, fps)
    print(f"{out}: {len(frames)} frames, {len(frames) / fps:g} s")


def write_text(out: Path, text: str) -> None:
    """A text file, and a line with its name."""
    write_file(out, text)
    print(out)


def write_picture(out: Path, picture: "Image") -> None:
    """A PNG."""
    data = io.BytesIO()
    picture.save(data, format="PNG")
    write_file(out, data.getvalue())

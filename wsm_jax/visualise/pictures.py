"""Figures: channels, grids of videos, loss curves. Pillow, NumPy and matplotlib on the host; no accelerator is used.

A *picture* is uint8 sRGB [H W 3], a *video* uint8 sRGB [T H W 3].
"""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from wsm_jax.snapshot import CHANNELS, WSV, channel
from wsm_jax.typing import NpOrJax, Shaped, UInt8

SHOWN_HEIGHT = 192
"""Small pictures are enlarged by the largest integer factor that keeps them within this number of pixel rows."""
STRIP = 20
"""Pixel rows of a title above a picture."""
GAP = 4
"""Pixels between pictures."""
BACKGROUND = (22, 22, 26)
INK = (226, 226, 230)

Titled = Sequence[tuple[str, np.ndarray]]
"""(title, uint8 video [T H W 3]) pairs."""

NOT_CURVES = ("step", "time", "data_seconds", "grad_norm", "finite", "steps_per_s", "gflops_per_s")
"""Keys of metric rows that are not terms of a loss."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f", "#a6761d", "#666600")

NO_METADATA = {"Creator": None, "Date": None, "Format": None, "Type": None}
"""Omits dates and web addresses, so that equal curves give equal text."""


def picture(name: str, values: Shaped[NpOrJax, "*lead H W C"]) -> UInt8[np.ndarray, "*lead H W 3"]:
    """A channel in physical units as colours, by its row of the channel table; values that are not finite are drawn as 0.

    Raises KeyError for an unknown channel, ValueError for a wrong number of components.
    """
    row = channel(name)
    values = np.nan_to_num(np.asarray(values, np.float32), posinf=0.0, neginf=0.0)
    if values.shape[-1] != row.components:
        raise ValueError(f"channel {name!r}: got {values.shape[-1]} components in {values.shape}; needed {row.components}")
    return np.rint(255.0 * np.clip(row.picture(values), 0.0, 1.0)).astype(np.uint8)


def enlarge(video: UInt8[np.ndarray, "*lead H W 3"], height: int) -> UInt8[np.ndarray, "*lead h w 3"]:
    """Nearest-neighbour resampling to `height` rows, the aspect kept; pixels stay sharp if the factor is an integer."""
    rows, columns = video.shape[-3:-1]
    if rows == height:
        return video
    width = max(1, round(columns * height / rows))
    i = np.minimum((np.arange(height) + 0.5) * rows / height, rows - 1).astype(np.int64)
    j = np.minimum((np.arange(width) + 0.5) * columns / width, columns - 1).astype(np.int64)
    return video[..., i[:, None], j[None, :], :]


def even(video: UInt8[np.ndarray, "*lead H W 3"]) -> UInt8[np.ndarray, "*lead h w 3"]:
    """Pad a picture of odd height or width with background to an even size, which video codecs need."""
    rows, columns = video.shape[-3:-1]
    if rows % 2 == 0 and columns % 2 == 0:
        return video
    out = _canvas(video.shape[:-3], rows + rows % 2, columns + columns % 2)
    out[..., :rows, :columns, :] = video
    return out


def titled(title: str, video: UInt8[np.ndarray, "T H W 3"]) -> UInt8[np.ndarray, "T h W 3"]:
    """The video below a strip with its title, which is shortened to fit."""
    strip = np.asarray(_strip(title, video.shape[2]))
    return np.concatenate([np.broadcast_to(strip, (len(video), *strip.shape)), video], 1)


def side_by_side(videos: Titled) -> UInt8[np.ndarray, "T h w 3"]:
    """Titled videos in one row: `grid` with one column for each. Raises ValueError as `grid` does."""
    return grid(videos, len(videos))


def grid(videos: Titled, columns: int) -> UInt8[np.ndarray, "T h w 3"]:
    """Titled videos in rows of `columns`, of even size.

    All get the height of the tallest, enlarged towards SHOWN_HEIGHT, and the length of the longest: a shorter one repeats its
    last frame. Raises ValueError for no video, an empty one, or one that is not uint8 [T H W 3].
    """
    if not videos or columns < 1:
        raise ValueError(f"grid: {len(videos)} videos in {columns} columns; needed at least one of each")
    for title, video in videos:
        if video.dtype != np.uint8 or video.ndim != 4 or video.shape[-1] != 3 or video.size == 0:
            raise ValueError(
                f"grid: the video {title!r} is {video.dtype} {video.shape}; needed uint8 (T, H, W, 3), none of them 0"
            )
    tallest = max(video.shape[1] for _, video in videos)
    height = tallest * max(1, SHOWN_HEIGHT // tallest)
    frames = max(len(video) for _, video in videos)
    cells = []
    for title, video in videos:
        index = np.minimum(np.arange(frames), len(video) - 1)
        cells.append(titled(title, enlarge(video, height))[index])
    widths = [max(cell.shape[2] for cell in cells[column::columns]) for column in range(min(columns, len(cells)))]
    left = np.cumsum([GAP, *(width + GAP for width in widths)])
    rows = math.ceil(len(cells) / columns)
    out = _canvas((frames,), GAP + rows * (STRIP + height + GAP), int(left[-1]))
    for index, cell in enumerate(cells):
        top, x = GAP + index // columns * (STRIP + height + GAP), int(left[index % columns])
        out[:, top : top + cell.shape[1], x : x + cell.shape[2]] = cell
    return even(out)


def channel_grid(video: WSV) -> UInt8[np.ndarray, "T h w 3"]:
    """Every channel of a video in the order of the channel table, rgb first, titled, in a grid about as wide as high.

    Raises ValueError for a video without channels.
    """
    names = [name for name in CHANNELS if name in video.channels]
    if not names:
        raise ValueError(f"channel_grid: no channel to draw; needed one of {', '.join(CHANNELS)}")
    panels = [(name.replace("_", " "), picture(name, video.channels[name])) for name in names]
    return grid(panels, math.ceil(math.sqrt(len(panels))) if len(panels) > 3 else len(panels))


def loss_curves(rows: Sequence[Mapping[str, float | int]]) -> str:
    """An SVG drawing of the loss and its terms over the steps, on a log scale; `rows` as `runtime.metrics.read_metrics` gives.

    The suffix _0 or _1 of a term is its end of the flow: both have one colour, and level 1 is dashed. Values are drawn in a
    pale colour, with their running mean on top. Values that are not finite and positive are left out.
    Raises ValueError for no rows, or rows without "loss".
    """
    if not rows or "loss" not in rows[0]:
        raise ValueError(f"loss curves: {len(rows)} rows of metrics; needed at least one, with 'step' and 'loss'")
    names = ["loss", *(name for name in dict.fromkeys(n for row in rows for n in row) if _is_term(name))]
    style: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "wsm", "font.family": "sans-serif", "font.size": 9}
    with rc_context(style):
        figure = Figure(figsize=(6.2, 3.3), layout="constrained")
        axes = figure.add_subplot()
        stems = list(dict.fromkeys(_stem(name) for name in names[1:]))
        for name in names:
            colour = "#222222" if name == "loss" else COLOURS[stems.index(_stem(name)) % len(COLOURS)]
            _curve(axes, name, [(row["step"], row[name]) for row in rows if name in row], colour)
        axes.set_yscale("log")
        axes.set_xlabel("step")
        axes.grid(alpha=0.25, linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        drawn = len(axes.get_legend_handles_labels()[1])
        if drawn:
            figure.legend(loc="outside right upper", frameon=False, fontsize=8, ncols=math.ceil(drawn / 14))
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata=NO_METADATA)
    return out.getvalue()


def _curve(axes: Axes, name: str, points: Sequence[tuple[float | int, float | int]], colour: str) -> None:
    """Draw one curve of `loss_curves`; draw nothing if no value fits a log scale."""
    values = np.asarray([point for point in points if math.isfinite(point[1]) and point[1] > 0], np.float64)
    if not len(values):
        return
    dashed, wide = "--" if name.endswith("_1") else "-", 1.8 if name == "loss" else 1.1
    half = len(values) // 40
    total = np.concatenate([[0.0], np.cumsum(values[:, 1])])
    low = np.maximum(np.arange(len(values)) - half, 0)
    high = np.minimum(np.arange(len(values)) + half + 1, len(values))
    if half:
        axes.plot(values[:, 0], values[:, 1], color=colour, alpha=0.18, linewidth=0.6)
    marker = "o" if len(values) == 1 else ""
    mean = (total[high] - total[low]) / (high - low)
    axes.plot(values[:, 0], mean, linestyle=dashed, marker=marker, color=colour, linewidth=wide, label=name)


def _is_term(name: str) -> bool:
    """True for a term of the loss, and for the loss on held-out batches; other results of evaluators are no curves."""
    return name == "validation/loss" or (name not in (*NOT_CURVES, "loss") and "/" not in name)


def _stem(name: str) -> str:
    return name[:-2] if name.endswith(("_0", "_1")) else name


def _canvas(lead: tuple[int, ...], height: int, width: int) -> np.ndarray:
    out = np.empty((*lead, height, width, 3), np.uint8)
    out[:] = BACKGROUND
    return out


def _strip(title: str, width: int) -> Image.Image:
    """A title on the background, shortened with "..." if it is too long."""
    strip = Image.new("RGB", (width, STRIP), BACKGROUND)
    font, available = ImageFont.load_default(12), width - 4
    text = title
    while text and font.getlength(text) > available:
        text = text[: -4 if text.endswith("...") else -1].rstrip(" .") + "..." if len(text) > 4 else ""
    ImageDraw.Draw(strip).text((2, STRIP // 2), text, INK, font, anchor="lm")
    return strip

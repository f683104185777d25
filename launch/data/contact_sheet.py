"""Contact sheet: every channel of some clips of a dataset, time from left to right."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data_pipelines.wsv import Dataset
from wsm_jax.snapshot import channel, restore

LABEL = 110
"""Width of the column of channel names, pixels."""

HEAD = 22
"""Height of the line above a clip, pixels."""


def captions(dataset: Dataset, clip: int) -> list[str]:
    """Captions of a clip, each preceded by its time span if it has one."""
    texts = dataset.captions(clip)
    spans = dataset.spans(clip) or (None,) * len(texts)
    return [f"{span[0]:.2f}..{span[1]:.2f} s: {t}" if span else t for t, span in zip(texts, spans, strict=True)]


def contact_sheet(dataset: Dataset, clips: int | list[int], frames: int, tile: int) -> Image.Image:
    """Draw the given clips, or that number of clips evenly spaced over the dataset, with `frames` evenly spaced frames of each.

    Frames lower than `tile` pixels are enlarged by an integer factor.
    Raises ValueError for a dataset without channels, and what Dataset.read raises.
    """
    layout = dataset.layout
    if not layout.channels:
        raise ValueError(f"{dataset.folder.path}: has no channels, so there is nothing to draw")
    chosen = clips if isinstance(clips, list) else np.unique(np.linspace(0, len(dataset) - 1, clips).round().astype(int))
    shown = min(frames, max(dataset.frames(clip) for clip in chosen))
    zoom = -(-tile // layout.height)
    height, width = zoom * layout.height + 2, zoom * layout.width + 2
    block = HEAD + height * len(layout.channels)
    page = Image.new("RGB", (LABEL + width * shown, block * len(chosen)), (20, 20, 24))
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for row, clip in enumerate(chosen):
        text = next(iter(captions(dataset, clip)), "")
        draw.text((6, row * block + 4), f"clip {clip}  {text}", fill=(255, 255, 255), font=font)
        steps = np.unique(np.linspace(0, dataset.frames(clip) - 1, frames).round().astype(int))
        stored = dataset.read(clip, layout.channels, steps)
        for line, name in enumerate(layout.channels):
            top = row * block + HEAD + line * height
            draw.text((6, top + 4), name, fill=(190, 190, 200), font=font)
            pictures = channel(name).picture(np.asarray(restore(name, stored[name])))
            for column, picture in enumerate(np.rint(255 * pictures).astype(np.uint8)):
                page.paste(Image.fromarray(picture.repeat(zoom, 0).repeat(zoom, 1)), (LABEL + column * width, top))
    return page

"""Slots of the core in the order in which captions mention the objects: a transform of batches."""

import dataclasses
from typing import Any

import numpy as np

from data_pipelines.simulation.captions import slots_by_mention
from data_pipelines.simulation.scene import FIRST_OBJECT
from wsm_jax.snapshot import Waves
from wsm_jax.text import decode_caption


@dataclasses.dataclass(frozen=True)
class MentionOrder:
    """Reorders the slots of the core [B K N ...] and of latents [B N+1 ...], row by row, as the caption mentions the objects.

    The last entry of a latent belongs to the scene and stays last.
    """

    latents: tuple[str, ...] = ("style",)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch in the new order.

        Raises KeyError for a latent that the batch lacks, ValueError for a core without ticks or with fewer slots than floor
        and screen take.
        """
        core = batch["core"]
        rows, ticks, slots = core["presence"].shape
        if ticks < 1 or slots < FIRST_OBJECT:
            raise ValueError(f"MentionOrder: a core of {ticks} ticks and {slots} waves; needed 1 and {FIRST_OBJECT} at least")
        order = np.empty((rows, slots), np.int64)
        for number, caption in enumerate(batch["caption"]):
            first = Waves(**{name: values[number, 0] for name, values in core.items()})
            order[number] = slots_by_mention(decode_caption(caption), first)
        row = np.arange(rows)[:, None]
        # The advanced indices of rows and slots are apart, so their axes come first: [B N K ...].
        sorted_core = {name: np.ascontiguousarray(values[row, :, order].swapaxes(1, 2)) for name, values in core.items()}
        with_scene = np.concatenate([order, np.full((rows, 1), slots)], 1)
        latents = {name: batch["latents"][name][row, with_scene] for name in self.latents}
        found = {**batch, "core": sorted_core}
        if latents:
            found["latents"] = {**batch["latents"], **latents}
        return found

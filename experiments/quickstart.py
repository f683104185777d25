"""The first world on two cores: one to three objects that fall, slide, roll and collide, from text to core to pixels and back.

    bash launch/quickstart.sh --workdir=runs/quickstart

Hardware: two CPU cores, no accelerator. What was measured stands in the README, "What the quickstart reaches". More steps help
text to core most: 0.62 of the named objects were right after --set=world.run.steps=750, 0.89 to 0.91 after these 1000, and 0.96
after 750 of twice the batch (on 1440 to 2500 scenes).
"""

from ml_collections import ConfigDict

from data_pipelines.simulation.captions import VOCABULARY
from wsm_jax.experiment import Config


def _dataset(scenes: int, seed: int, pixels: bool, frame_hz: float) -> dict:
    """Scenes of 3 s; a set without pixels has core, camera and captions alone."""
    return {
        "scenes": scenes, "seed": seed, "height": 48, "width": 48, "frame_hz": frame_hz, "seconds": 3.0, "pixels": pixels,
    }  # fmt: skip


def _run(steps: int, batch_size: int, peak: float, warmup: int) -> dict:
    return {
        "steps": steps,
        "batch_size": batch_size,
        "accumulate": 1,
        "checkpoint_every": 500,
        "log_every": 10,
        "keep": 1,
        "optimizer": {
            "name": "adamw", "peak": peak, "warmup": warmup, "schedule": "cosine", "weight_decay": 0.01, "clip": 1.0,
            "b2": 0.95, "ema_decay": 0.995,
        },
    }  # fmt: skip


def get_config() -> Config:
    """Every key of `wsm_jax.experiment.SCHEMA`."""
    config: Config = ConfigDict()
    config.name = "quickstart"
    config.seed = 0
    config.mesh = {"data": -1, "fsdp": 1, "tensor": 1, "context": 1}
    config.simulate = {
        "train": _dataset(672, 1, True, 4.0),
        "cores": _dataset(768, 2, False, 8.0),
        "test": _dataset(64, 3, True, 8.0),
    }
    config.bridge = {
        "sources": (("data/train", 1.0),),
        "frames": 2,
        "frame_hz": 1.0,
        "height": 48,
        "width": 48,
        "layout": {
            "channels": ("depth", "normal", "semantic", "coverage", "local", "centre", "extent", "ground"),
            "waves": 6,
            "wave_code": 8,
            "scene_code": 8,
            "patch_code": 4,
        },
        "network": {
            "rows": 6,
            "patch": 8,
            "width": 128,
            "depth": 4,
            "heads": 4,
            "pixel_width": 48,
            "frequencies": (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0),
        },
        "style_width": 32,
        "objective": {
            "core_noise": 0.05,
            "pixel_noise": 0.1,
            "code_noise": 0.05,
            "mix": (0.65, 0.25, 0.1),
            "at_end": 0.7,
            "object_weight": 6.0,
            "pixel_share": 0.125,
        },
        "levels": {"logit_normal": 0.5, "mean": 0.0, "std": 1.0, "source_end": 0.25, "target_end": 0.25, "power": 3.0},
        "run": _run(1000, 12, 2e-3, 50),
    }
    config.world = {
        "sources": (("data/train", 0.5), ("data/cores", 0.5)),
        "words": VOCABULARY,
        "first_caption": True,
        "text_length": 44,
        "ticks": 24,
        "network": {"text_code": 32, "tick_patch": 8, "width": 128, "depth": 4, "heads": 4},
        "objective": {
            "tasks": (
                ("imagine", 0.45), ("describe", 0.33), ("dress", 0.05), ("dress_untold", 0.04), ("continue", 0.03),
                ("continue_told", 0.02), ("rewind", 0.03), ("infill", 0.02), ("edit", 0.03),
            ),
            "cube": 0.05,
            "weights": (1.0, 1.0, 0.3),
        },
        "levels": {"logit_normal": 0.2, "mean": 0.0, "std": 1.0, "source_end": 0.8, "target_end": 0.0, "power": 4.0},
        "run": _run(1000, 16, 2e-3, 50),
    }  # fmt: skip
    config.sampling = {"bridge_steps": 1, "bridge_method": "euler", "world_steps": 16, "world_method": "euler"}
    config.evaluate = {"clips": 64, "seed": 0, "video_size": 96, "video_fps": 12.0}
    return config

"""The first world on two cores: one to three objects that fall, slide, roll and collide, from text to core to pixels and back.

    bash launch/quickstart.sh --workdir=runs/quickstart

Hardware: two CPU cores, no accelerator. The README says what was measured ("What the quickstart reaches"). More steps help text
to core most: 0.62 of the named objects were right after --config.stages.world.steps=750, 0.89 to 0.91 after these 1000, and
0.96 after 750 of twice the batch (on 1440 to 2500 scenes).
"""

from data_pipelines.loading.clips import Clips
from data_pipelines.loading.held_out import HeldOut
from data_pipelines.loading.transforms import Tokenise
from data_pipelines.simulation.captions import VOCABULARY, NamedObjects
from data_pipelines.simulation.dataset import SimulatedDataset
from data_pipelines.simulation.mention import MentionOrder
from data_pipelines.simulation.scene import SCENE_DIAGONAL_M
from wsm_jax.config import Config, node
from wsm_jax.evaluation.world_report import SampleVideos, WorldReport
from wsm_jax.flow import LevelMix
from wsm_jax.models.wave_bridge.draws import BridgeDraws
from wsm_jax.models.wave_bridge.encoder import StyleCodes
from wsm_jax.models.wave_bridge.network import StyleEncoder, WaveBridge
from wsm_jax.models.wave_bridge.objective import BridgeObjective
from wsm_jax.models.wave_bridge.sampler import BridgeSampler
from wsm_jax.models.wave_bridge.state import BridgeLayout
from wsm_jax.models.world_flow.network import WorldFlow
from wsm_jax.models.world_flow.objective import WorldObjective
from wsm_jax.models.world_flow.sampler import WorldFlowSampler
from wsm_jax.models.world_flow.state import WorldLayout
from wsm_jax.text import Tokenizer
from wsm_jax.training import AdamW, Cosine, Experiment, Stage, Validation
from wsm_jax.world import World

WAVES = 6
SIZE = (48, 48)


def get_config() -> Config:
    """An `Experiment` of two stages: the bridge, then the world flow on the style codes that the bridge has written."""
    bridge = node(
        WaveBridge,
        layout=node(
            BridgeLayout,
            channels=("depth", "normal", "semantic", "coverage", "local", "centre", "extent", "ground"),
            waves=WAVES, wave_code=8, scene_code=8, patch_code=4,
        ),
        rows=6, patch=8, width=128, depth=4, heads=4, pixel_width=48, frequencies=(1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0),
        pixel_noise=0.1,
    )  # fmt: skip
    flow = node(
        WorldFlow,
        layout=node(
            WorldLayout, text=node(Tokenizer, words=VOCABULARY, length=44), text_code=32, ticks=24, tick_patch=8, waves=WAVES,
            style_code=8,
        ),
        width=128, depth=4, heads=4,
    )  # fmt: skip
    world = node(
        World,
        bridge=node(BridgeSampler, network=bridge, size=SIZE, steps=1, method="euler"),
        flow=node(WorldFlowSampler, network=flow, steps=16, method="euler"),
    )
    held_out = node(HeldOut, path="data/test")
    return node(
        Experiment,
        name="quickstart",
        seed=0,
        mesh={"data": -1, "fsdp": 1, "tensor": 1, "context": 1},
        datasets={
            "train": dataset(scenes=672, seed=1, frame_hz=4.0),
            "cores": dataset(scenes=768, seed=2, frame_hz=8.0, pixels=False),
            "test": dataset(scenes=64, seed=3, frame_hz=8.0),
        },
        stages={
            "bridge": bridge_stage(bridge, node(SampleVideos, sampler=world, data=held_out, every=500)),
            "world": world_stage(flow, node(SampleVideos, sampler=world, data=held_out, every=500)),
        },
        sampler=world,
        evaluators={
            "world": node(
                WorldReport, data=held_out, facts=node(NamedObjects), clips=64, diagonal_m=SCENE_DIAGONAL_M, video_size=96,
                video_fps=12.0,
            ),
        },
    )  # fmt: skip


def dataset(**fields: object) -> Config:
    """Scenes of 3 s; a dataset without pixels has core, camera and captions alone."""
    return node(SimulatedDataset, height=SIZE[0], width=SIZE[1], seconds=3.0, **fields)


def bridge_stage(network: Config, videos: Config) -> Config:
    """Pixels <-> surface and style, on pairs of frames a second apart."""
    objective = node(
        BridgeObjective,
        bridge=network,
        style=node(StyleEncoder, layout=network.layout, width=32, frequencies=network.frequencies),
        frames=2, size=SIZE, core_noise=0.05, code_noise=0.05, object_weight=6.0, pixel_share=0.125, style_weight=0.3,
        remainder_weight=0.1,
        draws=node(
            BridgeDraws,
            mix=(0.65, 0.25, 0.1),
            levels=node(LevelMix, logit_normal=0.5, source_end=0.25, target_end=0.25, power=3.0),
            at_end=0.7,
        ),
    )  # fmt: skip
    channels = ("rgb", "base_colour", "instance", *network.layout.channels)

    def clips(path: str) -> Config:
        return node(
            Clips, sources=((path, 1.0),), channels=channels, frames=2, frame_hz=1.0, height=SIZE[0], width=SIZE[1], waves=WAVES
        )

    return node(
        Stage,
        objective=objective,
        data=clips("data/train"),
        encoder=node(StyleCodes, objective=objective),
        encode=("data/train", "data/cores", "data/test"),
        evaluators={"validation": node(Validation, data=clips("data/test"), batches=1, rows=12, every=250), "videos": videos},
        **training(batch_size=12),
    )


def world_stage(network: Config, videos: Config) -> Config:
    """Text <-> core, with the style codes of the bridge; objects come in the order in which the caption mentions them."""
    layout = network.layout

    def clips(*sources: tuple[str, float]) -> Config:
        return node(
            Clips,
            sources=sources, ticks=layout.ticks, waves=WAVES, first_caption=True,
            latents=(("style", "bridge", (WAVES + 1, layout.style_code)),),
            transforms=(node(MentionOrder, latents=("style",)), node(Tokenise, text=layout.text)),
        )  # fmt: skip

    return node(
        Stage,
        objective=node(
            WorldObjective,
            model=network,
            tasks=(
                ("imagine", 0.45), ("describe", 0.33), ("sample_style", 0.05), ("sample_style_unconditional", 0.04),
                ("continue", 0.03), ("continue_with_text", 0.02), ("rewind", 0.03), ("infill", 0.02), ("edit", 0.03),
            ),
            levels=node(LevelMix, logit_normal=0.2, source_end=0.8, target_end=0.0, power=4.0),
            cube=0.05, weights=(1.0, 1.0, 0.3), field_weights={"colour": 8.0, "exponents": 3.0, "scale": 2.0, "semantic": 2.0},
        ),
        data=clips(("data/train", 0.5), ("data/cores", 0.5)),
        needs=("bridge",),
        evaluators={
            "validation": node(Validation, data=clips(("data/test", 1.0)), batches=1, rows=16, every=250),
            "videos": videos,
        },
        **training(batch_size=16),
    )  # fmt: skip


def training(batch_size: int) -> dict[str, object]:
    """Settings that both stages share."""
    optimizer = node(AdamW, peak=2e-3, warmup=50, schedule=node(Cosine), weight_decay=0.01, clip=1.0, b2=0.95)
    return {
        "optimizer": optimizer, "steps": 1000, "batch_size": batch_size, "ema_decay": 0.995, "checkpoint_every": 500,
        "log_every": 10,
    }  # fmt: skip

"""Two stages of the toy family; the second one has the first one's weights frozen."""

from tests.toy_family.points import PointFlow, PointObjective, PointSampler, RadiusReport, Ring, Scatter
from wsm_jax.config import node
from wsm_jax.training import AdamW, Constant, Experiment, Stage, Validation


def get_config():
    first, second = node(PointFlow, width=32), node(PointFlow, width=16)
    sampler = node(PointSampler, first=first, second=second, steps=8)
    ring = node(Ring, radius=2.0)

    def stage(objective, **fields):
        return node(
            Stage,
            objective=objective,
            data=ring,
            optimizer=node(AdamW, peak=1e-2, warmup=4, schedule=node(Constant), weight_decay=0.0, clip=1.0),
            steps=40, batch_size=64, ema_decay=0.9, checkpoint_every=10, log_every=1, keep=4,
            evaluators={
                "validation": node(Validation, data=ring, batches=2, rows=64, every=20),
                "scatter": node(Scatter, sampler=sampler, every=20),
            },
            **fields,
        )  # fmt: skip

    return node(
        Experiment,
        name="toy",
        seed=5,
        mesh={"data": 2},
        stages={
            "first": stage(node(PointObjective, network=first)),
            "second": stage(node(PointObjective, network=second, base=first), frozen={"base": "first"}),
        },
        sampler=sampler,
        evaluators={"radius": node(RadiusReport, radius=2.0, count=256)},
    )

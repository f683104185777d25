"""The bridge on simulated and real clips together; a real clip has rgb alone, everything else of it is unknown.

python -m launch.data simulate --out=runs/mixed/data/train --scenes=300 --seed=1 --size=48x48 --fps=4
python -m launch.data ingest --out=runs/mixed/data/real --licence=LICENCE --size=48x48 --fps=8 VIDEO VIDEO ...
python -m launch.train --config=experiments/mixed.py --workdir=runs/mixed
python -m launch.sample perceive --workdir=runs/mixed --video=VIDEO --out=core.json --channels=channels.mp4

Hardware: two CPU cores, no accelerator. Measured on 2026-11-21 with 300 scenes and five real videos of 10 s (22 clips): 1.2
minutes to simulate, 0.4 to ingest, 3.3 to train, 0.4 to perceive 3 s; the loss ends at 0.91 (about 0.5 after the quickstart's
1000 steps). The channels of a real video are rough: what was simulated has a floor, plain sky and one to three simple bodies.
"""

from experiments import quickstart
from wsm_jax.config import Config


def get_config() -> Config:
    """The quickstart's bridge alone, a third of its clips real, few steps, no held-out scenes."""
    config = quickstart.get_config()
    config.name = "mixed"
    bridge = config.stages.bridge
    bridge.data.sources = (("data/train", 2.0), ("data/real", 1.0))
    bridge.steps = 300
    bridge.encode = ()
    for name in ("validation", "videos"):
        del bridge.evaluators[name]
    for part in (config.datasets, config.evaluators):
        for name in list(part):
            del part[name]
    del config.stages["world"]
    return config

"""Features of the episodes of an RLDS dataset: `features.json` of TFDS, in its current or older layout."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

_TFDS = "needed the file of that name that TFDS wrote beside the records"


@dataclasses.dataclass(frozen=True)
class Feature:
    """One leaf of the tree of features."""

    key: str
    """Name in a `tf.train.Example`: "steps/observation/image"."""
    kind: Literal["image", "text", "tensor", "other"]
    shape: tuple[int, ...]
    """Shape of one step; -1 is unknown."""
    dtype: str
    encoding: str
    """Encoding of a tensor: "none", "bytes" or "zlib"."""
    nesting: int
    """Number of enclosing sequences: 0 once per episode, 1 once per step; more are ragged."""

    @property
    def name(self) -> str:
        """Key without the common prefix."""
        return self.key.removeprefix("steps/").removeprefix("observation/")

    @property
    def is_camera(self) -> bool:
        """True for a colour or grey picture per step."""
        return (
            self.kind == "image"
            and self.nesting == 1
            and self.dtype == "uint8"
            and self.shape[-1:] in ((1,), (3,), (4,), (-1,))
        )

    @property
    def is_signal(self) -> bool:
        """True for an action or observation of real numbers [d]."""
        return (
            self.kind == "tensor"
            and self.nesting == 1
            and self.key.startswith(("steps/observation/", "steps/action"))
            and self.dtype in ("bfloat16", "float16", "float32", "float64")
            and (self.shape == () or (len(self.shape) == 1 and self.shape[0] > 0))
        )

    @property
    def is_instruction(self) -> bool:
        """True for the instruction of the robot."""
        last = self.key.rsplit("/", 1)[-1]
        words = self.kind == "text" or (self.kind == "tensor" and self.dtype in ("string", "object") and self.shape == ())
        return words and self.nesting < 2 and ("instruction" in last or "language" in last)


def read_features(path: Path) -> tuple[Feature, ...]:
    """Leaves of `features.json`. Raises FileNotFoundError, or ValueError, naming the file, if it is not of an RLDS dataset."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {_TFDS} (is the dataset in a folder of its version below?)")
    try:
        features = tuple(sorted(_leaves(json.loads(path.read_text("utf-8")), "", 0), key=lambda feature: feature.key))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise ValueError(f"{path}: describes no features ({type(error).__name__}: {error}); {_TFDS}") from error
    steps = [feature for feature in features if feature.key.startswith("steps/") and feature.nesting]
    if not steps:
        names = ", ".join(feature.key for feature in features[:8])
        raise ValueError(f"{path}: is of no RLDS dataset, whose episodes hold a dataset 'steps'; its features are {names}")
    if not any(feature.is_camera for feature in steps):
        names = ", ".join(feature.key for feature in steps[:20])
        raise ValueError(f"{path}: needed 8-bit pictures among the features of a step; they are {names}")
    return features


def _leaves(node: dict[str, Any], key: str, nesting: int) -> list[Feature]:
    old = "type" in node  # until TFDS 4.5; now pythonClassName names the class, and a key of its kind the content
    kind = (node["type"] if old else node["pythonClassName"]).rsplit(".", 1)[-1]
    content = node["content"] if old else next((v for k, v in node.items() if isinstance(v, dict) and k != "description"), {})
    content = json.loads(content) if isinstance(content, str) else content
    content = json.loads(content["json"]) if not old and set(content) == {"json"} else content
    if kind == "FeaturesDict":
        children = content["features"] if not old or node.get("proto_cls") else content
        return [leaf for name, child in children.items() for leaf in _leaves(child, f"{key}/{name}".lstrip("/"), nesting)]
    if kind in ("Dataset", "Sequence"):
        return _leaves(content["feature"], key, nesting + 1)
    known: dict[str, Any] = {"Image": "image", "Text": "text", "Tensor": "tensor", "Scalar": "tensor"}
    shape = content.get("shape") or ()
    shape = shape.get("dimensions", ()) if isinstance(shape, dict) else shape
    sizes = tuple(-1 if size is None else int(size) for size in shape)
    dtype, encoding = str(content.get("dtype", "uint8")), str(content.get("encoding") or "none")
    return [Feature(key, known.get(kind, "other"), sizes, dtype, encoding, nesting)]

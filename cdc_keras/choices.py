"""The words a setting can take, and the names of the networks: pure Python, so that flags need nothing else."""

import dataclasses
import re
from collections.abc import Callable

from cdc_keras.errors import UserError

TASKS = ("extractor", "classifier")
SKIPS = ("add", "none")
CONTEXTS = ("cdcgm", "cgm", "gm", "dm")
CONDITIONINGS = ("planes", "film")
FOOL_LOSSES = ("softmax", "wrong_class_ce", "uniform_ce")
BLOCK_ATTENTIONS = ("none", "se", "cbam")
NORMALIZATIONS = ("none", "imagenet")
RECIPES = ("wrn", "paper")
GATE_CONTEXTS = ("own", "shuffled", "untrained")
GATE_INITS = ("identity", "neutral", "centred", "spread", "he")
COMPATIBILITIES = ("mean", "sum", "none")
STRATEGIES = ("none", "mirrored", "multi_worker")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
AUTO = "auto"  # the one of them that is fastest where a run begins
AUGMENTATIONS = ("none", "randaugment", "cutmix", "mixup")
SPLITS = ("test", "validation")
WEIGHTS = ("last", "best")
EXTRACTORS = ("train", "zoo")
EXPORT_FORMATS = ("saved_model", "onnx", "litert", "litert_int8")

ZOO = "zoo:"  # a trained model is the path of a run folder, or this and the name of a record


@dataclasses.dataclass(frozen=True)
class Family:
    """Networks whose names differ in numbers only.

    Attributes:
        pattern: of the name, its groups the numbers.
        valid: (*numbers) -> whether there is such a network.
        members: which there are, for people.
    """

    pattern: re.Pattern
    valid: Callable[..., bool]
    members: str


# Two families share the pattern of "resnet50": ImageNet's comes first and wins.
FAMILIES = {
    "vgg": Family(re.compile(r"vgg(\d+)"), lambda depth: depth in (13, 16), "vgg13, vgg16"),
    "vgg_slim": Family(re.compile(r"vgg(\d+)_slim"), lambda depth: depth in (13, 16), "vgg13_slim, vgg16_slim"),
    "vgg_width": Family(
        re.compile(r"vgg(\d+)_w(\d+)"),
        lambda depth, width: depth in (13, 16) and width >= 1,
        "vgg<13 or 16>_w<channels of the first block> such as vgg13_w21",
    ),
    "imagenet_resnet": Family(
        re.compile(r"resnet(\d+)"), lambda depth: depth in (18, 34, 50, 101, 152), "resnet18, 34, 50, 101, 152"
    ),
    "cifar_resnet": Family(
        re.compile(r"resnet(\d+)"),
        lambda depth: depth >= 8 and (depth - 2) % 6 == 0,
        "resnet<6n + 2> such as resnet20, 32, 44, 56, 110",
    ),
    "preresnet": Family(re.compile(r"preresnet(\d+)"), lambda depth: depth in (110, 164), "preresnet110, preresnet164"),
    "wide_resnet": Family(
        re.compile(r"wrn(\d+)_(\d+)"),
        lambda depth, width: depth >= 10 and (depth - 4) % 6 == 0 and width >= 1,
        "wrn<6n + 4>_<k> such as wrn16_10, wrn28_10, wrn40_4",
    ),
}
NETWORKS = "; ".join(family.members for family in FAMILIES.values())


def find_network(name):
    """Returns (key of `FAMILIES`, numbers) of a network's name.

    Raises:
        UserError: naming the valid depths of the family, or all names if it is of none.
    """
    matches = {key: family.pattern.fullmatch(name) for key, family in FAMILIES.items()}
    named = {key: [int(number) for number in match.groups()] for key, match in matches.items() if match}
    for key, numbers in named.items():
        if FAMILIES[key].valid(*numbers):
            return key, numbers
    members = "; ".join(FAMILIES[key].members for key in named) or NETWORKS
    raise UserError(f"there is no network {name!r}; there are {members}")


def record_name(place):
    """Returns the name of the record that "zoo:<name>" says, None for the path of a run folder."""
    text = str(place)
    return text.removeprefix(ZOO) if text.startswith(ZOO) else None

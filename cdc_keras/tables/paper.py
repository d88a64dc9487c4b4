"""Tables 1 to 6 of the paper: which systems each compares, on which backbones, and the numbers it prints."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Table:
    """One table of the paper.

    Attributes:
        title: what it compares.
        datasets: names for --dataset; the first is the default.
        systems: {backbone: its systems, in the paper's order, without controls}.
        paper: {(backbone, system): {dataset: top-1, or (top-1, top-5), in percent}}.
    """

    title: str
    datasets: tuple[str, ...]
    systems: Mapping
    paper: Mapping


def _table(title, datasets, printed):
    """Returns the `Table` of a text, whose lines name a backbone and then systems, each with two numbers.

    The numbers are top-1 on CIFAR-10 and CIFAR-100, or on any other data set top-1 and top-5.
    """
    systems, paper = {}, {}
    for line in filter(None, map(str.strip, printed.splitlines())):
        backbone, *cells = line.split()
        systems[backbone] = (*systems.get(backbone, ()), *cells[::3])
        for system, *pair in zip(cells[::3], map(float, cells[1::3]), map(float, cells[2::3]), strict=True):
            on_cifar = dict(zip(("cifar10", "cifar100"), pair, strict=True))
            paper[backbone, system] = on_cifar if datasets == CIFAR else {datasets[0]: tuple(pair)}
    return Table(title, datasets, systems, paper)


CIFAR = ("cifar100", "cifar10")
TABLES = {
    1: _table(
        "Context modelling approaches",
        CIFAR,
        """
        vgg13  plain 94.18 74.72  dm 93.47 73.62  gm 94.39 75.48  cgm 94.45 75.56  ours 94.71 75.81
        vgg16  plain 93.85 73.78  dm 93.16 73.42  gm 94.15 75.03  cgm 94.18 74.85  ours 94.33 75.24
        """,
    ),
    2: _table(
        "Ablations",
        CIFAR,
        """
        vgg13  plain 94.18 74.72  without_ru 94.24 74.98  without_cc 94.60 75.62  without_rl 94.41 75.37
        vgg13  site_16 94.40 74.48  site_8 94.06 75.20  ours 94.71 75.81  after_relu 94.51 75.33  ru 94.22 75.03
        vgg16  plain 93.85 73.78  without_ru 94.04 74.21  without_cc 94.28 74.54  without_rl 94.19 74.36
        vgg16  site_16 94.23 74.73  site_8 93.95 74.11  ours 94.33 75.24  after_relu 94.12 74.71  ru 94.06 73.84
        """,
    ),
    3: _table(
        "Beside attention transfer, SE and CBAM",
        CIFAR,
        """
        vgg13     plain 94.18 74.72  at 94.43 75.58  ours 94.71 75.81
        vgg16     plain 93.85 73.78  at 94.23 74.76  ours 94.33 75.24
        wrn16_10  plain 94.58 77.72  at 94.86 78.77  ours 95.23 79.06
        wrn16_10  se 95.81 80.38  se_ours 96.02 80.86  cbam 95.09 79.51  cbam_ours 95.60 80.38
        wrn28_10  plain 95.18 79.15
        """,
    ),
    4: _table(
        "ImageNet32x32",
        ("imagenet_resized/32x32",),
        """
        resnet32   plain 37.31 62.97  at 37.20 62.74  ours 40.37 66.06
        resnet32   se 37.41 63.02  se_ours 40.11 65.82  cbam 37.82 63.35  cbam_ours 40.22 65.88
        resnet56   plain 42.35 68.01  at 42.48 68.18  ours 44.43 70.18
        resnet56   se 42.53 68.29  se_ours 45.08 70.57  cbam 43.18 68.92  cbam_ours 44.55 70.06
        resnet110  plain 49.08 74.35  at 49.03 74.11  ours 51.36 75.93
        resnet110  se 49.18 74.32  se_ours 50.29 75.17  cbam 49.43 74.55  cbam_ours 50.91 75.72
        """,
    ),
    5: _table(
        "ImageNet",
        ("imagenet2012",),
        """
        resnet18   plain 70.33 89.38  se 70.48 89.60  cbam 70.64 89.83  ours 71.38 90.12
        resnet34   plain 73.21 91.32  se 73.76 91.56  cbam 73.89 91.73  ours 74.97 92.11
        resnet50   plain 75.49 92.43  se 76.38 92.89  cbam 77.31 93.44  ours 77.85 93.71
        resnet101  plain 76.52 93.04  se 77.28 93.31  cbam 78.39 94.25  ours 78.63 94.42
        """,
    ),
    6: _table(
        "ImageNet-150K",
        ("imagenet150k",),
        """
        resnet101  plain 78.70 94.55  at 78.40 94.35  ours 79.00 95.10  ours_16 80.85 95.15
        resnet101  se 79.30 94.35  se_ours 80.65 94.80  cbam 78.80 94.20  cbam_ours 80.35 95.50
        """,
    ),
}

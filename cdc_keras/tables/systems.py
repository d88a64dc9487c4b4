"""The rows of Tables 1 to 6 as data: which systems, on which backbones, and what the paper says of each."""

import dataclasses
from collections.abc import Mapping

from cdc_keras.errors import UserError


@dataclasses.dataclass(frozen=True)
class System:
    """What is done to a backbone.

    Attributes:
        title: what a table says behind the backbone's name; empty for the backbone alone.
        settings: of `RunConfig`, over those of the table.
        context: name in `CONTEXTS` of the extractor whose T gates it; None without a gate.
        teacher: whether it is trained by attention transfer.
        matched: which wider network of `MATCHED` takes the backbone's place, if one does.
    """

    title: str
    settings: Mapping = dataclasses.field(default_factory=dict)
    context: str | None = None
    teacher: bool = False
    matched: int | None = None


# Context models of Table 1, w/o RL of Table 2, `strong` of docs/disentangling.md, and T at 16x16 of Table 6: settings
# of an extractor, over those of its flagfile.
CONTEXTS = {
    "cdcgm": {},
    "cgm": {"context": "cgm"},
    "gm": {"context": "gm"},
    "dm": {"context": "dm", "network": "wrn16_10"},
    "without_rl": {"repulsive_weight": 0.0},
    "strong": {"fool_weight": 0.1, "discriminators": 4, "discriminator_reset_epochs": 1},
    "size_16": {"context_size": 16},
}

SE, CBAM = {"block_attention": "se"}, {"block_attention": "cbam"}
AS_PRINTED = {"gate_init": "he", "gate_compatibility": "sum"}
SYSTEMS = {
    "plain": System(""),
    "dm": System("+ DM", context="dm"),
    "gm": System("+ GM", context="gm"),
    "cgm": System("+ CGM", context="cgm"),
    "ours": System("+ Ours (CDCGM)", context="cdcgm"),
    "without_ru": System("+ Ours w/o RU", {"gate_residual": False}, "cdcgm"),
    "without_cc": System("+ Ours w/o CC", {"gate_compatibility": "none"}, "cdcgm"),
    "without_rl": System("+ Ours w/o RL", context="without_rl"),
    "site_16": System("+ Ours, 16x16 only", {"gate_sites": ("16x16",)}, "cdcgm"),
    "site_8": System("+ Ours, 8x8 only", {"gate_sites": ("8x8",)}, "cdcgm"),
    "after_relu": System("+ Ours after ReLU", {"gate_after_relu": True}, "cdcgm"),
    "ru": System("+ RU", {"gate_attention": False}),
    "at": System("+ AT", teacher=True),
    "se": System("+ SE", SE),
    "se_ours": System("+ SE + Ours", SE, "cdcgm"),
    "cbam": System("+ CBAM", CBAM),
    "cbam_ours": System("+ CBAM + Ours", CBAM, "cdcgm"),
    "ours_16": System("+ Ours, T at 16x16", context="size_16"),
    # Not in the paper: what the gate gains over is as wide, or attends to nothing.
    "as_printed": System("+ Ours as printed: He initialisation, C of sums", AS_PRINTED, "cdcgm"),
    "centred": System("+ Ours, M starting in its sigmoid's middle", {"gate_init": "centred"}, "cdcgm"),
    "undecayed": System("+ Ours, gate without weight decay", {"gate_weight_decay": False}, "cdcgm"),
    "faster": System("+ Ours, gate at 3 times the learning rate", {"gate_learning_rate_factor": 3.0}, "cdcgm"),
    "strong": System("+ Ours (strong)", context="strong"),
    "shuffled": System("+ Ours with T of another image (control)", {"gate_context": "shuffled"}, "cdcgm"),
    "untrained": System("+ Ours with an untrained extractor (control)", {"gate_context": "untrained"}, "cdcgm"),
    "wider": System("(control: plain, as many weights as are trained with the gate)", matched=0),
    "wider_all": System("(control: plain, as many weights as with gate and extractor)", matched=1),
}
# The gates on record started as "neutral".
SYSTEMS = {
    name: dataclasses.replace(system, settings={"gate_init": "neutral", **system.settings})
    if system.context is not None or system.settings.get("gate_attention") is False
    else system
    for name, system in SYSTEMS.items()
}
CONTROLS = (
    *("as_printed", "centred", "undecayed", "faster", "strong"),
    *("shuffled", "untrained", "wider", "wider_all"),
)

# The smallest plain network of the family with at least as many parameters as the gated one: without and with those of
# the extractor, which are not trained. At 100 categories; a test counts them.
MATCHED = {
    "vgg13": ("vgg13_w66", "vgg13_w67"),
    "vgg16": ("vgg16_w66", "vgg16_w66"),
    "vgg13_slim": ("vgg13_w17", "vgg13_w21"),
    "vgg16_slim": ("vgg16_w17", "vgg16_w19"),
    "resnet20": ("resnet26", "resnet44"),
}
# In brackets behind AT in Tables 3, 4 and 6; of the networks that a CPU trains, ours.
TEACHERS = {
    "vgg13": "wrn16_10",
    "vgg16": "wrn16_10",
    "wrn16_10": "wrn28_10",
    "resnet32": "resnet56",
    "resnet56": "resnet110",
    "resnet110": "preresnet164",
    "resnet101": "resnet152",
    "vgg13_slim": "resnet20",
    "resnet20": "resnet32",
}
# Smaller networks that a CPU trains -> of which network the paper's gains are set beside theirs.
STANDS_FOR = {"vgg13_slim": "vgg13", "vgg16_slim": "vgg16"}


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


def _on_cifar(backbone, **values):
    """Returns the `Table.paper` of one backbone: system -> (top-1 on CIFAR-10, on CIFAR-100)."""
    return {(backbone, name): {"cifar10": a, "cifar100": b} for name, (a, b) in values.items()}


def _on(dataset, **values):
    """Returns the `Table.paper` of one data set: backbone -> {system: (top-1, top-5)}."""
    return {(backbone, name): {dataset: of} for backbone, found in values.items() for name, of in found.items()}


CIFAR = ("cifar100", "cifar10")
ABLATIONS = ("plain", "without_ru", "without_cc", "without_rl", "site_16", "site_8", "ours", "after_relu", "ru")
BESIDE_OTHERS = ("plain", "at", "ours", "se", "se_ours", "cbam", "cbam_ours")
ALONE = ("plain", "se", "cbam", "ours")
_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")

TABLES = {
    1: Table(
        "Context modelling approaches",
        CIFAR,
        dict.fromkeys(("vgg13", "vgg16"), ("plain", "dm", "gm", "cgm", "ours")),
        _on_cifar(
            "vgg13", plain=(94.18, 74.72), dm=(93.47, 73.62), gm=(94.39, 75.48), cgm=(94.45, 75.56), ours=(94.71, 75.81)
        )
        | _on_cifar(
            "vgg16", plain=(93.85, 73.78), dm=(93.16, 73.42), gm=(94.15, 75.03), cgm=(94.18, 74.85), ours=(94.33, 75.24)
        ),
    ),
    2: Table(
        "Ablations",
        CIFAR,
        dict.fromkeys(("vgg13", "vgg16"), ABLATIONS),
        _on_cifar(
            "vgg13",
            plain=(94.18, 74.72),
            without_ru=(94.24, 74.98),
            without_cc=(94.60, 75.62),
            without_rl=(94.41, 75.37),
            site_16=(94.40, 74.48),
            site_8=(94.06, 75.20),
            ours=(94.71, 75.81),
            after_relu=(94.51, 75.33),
            ru=(94.22, 75.03),
        )
        | _on_cifar(
            "vgg16",
            plain=(93.85, 73.78),
            without_ru=(94.04, 74.21),
            without_cc=(94.28, 74.54),
            without_rl=(94.19, 74.36),
            site_16=(94.23, 74.73),
            site_8=(93.95, 74.11),
            ours=(94.33, 75.24),
            after_relu=(94.12, 74.71),
            ru=(94.06, 73.84),
        ),
    ),
    3: Table(
        "Beside attention transfer, SE and CBAM",
        CIFAR,
        {
            "vgg13": ("plain", "at", "ours"),
            "vgg16": ("plain", "at", "ours"),
            "wrn16_10": BESIDE_OTHERS,
            "wrn28_10": ("plain",),
        },
        _on_cifar("vgg13", plain=(94.18, 74.72), at=(94.43, 75.58), ours=(94.71, 75.81))
        | _on_cifar("vgg16", plain=(93.85, 73.78), at=(94.23, 74.76), ours=(94.33, 75.24))
        | _on_cifar(
            "wrn16_10",
            plain=(94.58, 77.72),
            at=(94.86, 78.77),
            ours=(95.23, 79.06),
            se=(95.81, 80.38),
            se_ours=(96.02, 80.86),
            cbam=(95.09, 79.51),
            cbam_ours=(95.60, 80.38),
        )
        | _on_cifar("wrn28_10", plain=(95.18, 79.15)),
    ),
    4: Table(
        "ImageNet32x32",
        ("imagenet_resized/32x32",),
        dict.fromkeys(("resnet32", "resnet56", "resnet110"), BESIDE_OTHERS),
        _on(
            "imagenet_resized/32x32",
            resnet32=dict(
                plain=(37.31, 62.97),
                at=(37.20, 62.74),
                ours=(40.37, 66.06),
                se=(37.41, 63.02),
                se_ours=(40.11, 65.82),
                cbam=(37.82, 63.35),
                cbam_ours=(40.22, 65.88),
            ),
            resnet56=dict(
                plain=(42.35, 68.01),
                at=(42.48, 68.18),
                ours=(44.43, 70.18),
                se=(42.53, 68.29),
                se_ours=(45.08, 70.57),
                cbam=(43.18, 68.92),
                cbam_ours=(44.55, 70.06),
            ),
            resnet110=dict(
                plain=(49.08, 74.35),
                at=(49.03, 74.11),
                ours=(51.36, 75.93),
                se=(49.18, 74.32),
                se_ours=(50.29, 75.17),
                cbam=(49.43, 74.55),
                cbam_ours=(50.91, 75.72),
            ),
        ),
    ),
    5: Table(
        "ImageNet",
        ("imagenet2012",),
        dict.fromkeys(_RESNETS, ALONE),
        _on(
            "imagenet2012",
            resnet18=dict(plain=(70.33, 89.38), se=(70.48, 89.60), cbam=(70.64, 89.83), ours=(71.38, 90.12)),
            resnet34=dict(plain=(73.21, 91.32), se=(73.76, 91.56), cbam=(73.89, 91.73), ours=(74.97, 92.11)),
            resnet50=dict(plain=(75.49, 92.43), se=(76.38, 92.89), cbam=(77.31, 93.44), ours=(77.85, 93.71)),
            resnet101=dict(plain=(76.52, 93.04), se=(77.28, 93.31), cbam=(78.39, 94.25), ours=(78.63, 94.42)),
        ),
    ),
    6: Table(
        "ImageNet-150K",
        ("imagenet150k",),
        {"resnet101": ("plain", "at", "ours", "ours_16", "se", "se_ours", "cbam", "cbam_ours")},
        _on(
            "imagenet150k",
            resnet101=dict(
                plain=(78.70, 94.55),
                at=(78.40, 94.35),
                ours=(79.00, 95.10),
                ours_16=(80.85, 95.15),
                se=(79.30, 94.35),
                se_ours=(80.65, 94.80),
                cbam=(78.80, 94.20),
                cbam_ours=(80.35, 95.50),
            ),
        ),
    ),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A system on a backbone.

    Attributes:
        backbone: name of the network, whose family and plain row it belongs to.
        system: key of `SYSTEMS`.
    """

    backbone: str
    system: str

    @property
    def name(self):
        """What --rows, run folders and records call it."""
        return f"{self.backbone}+{self.system}"

    @property
    def network(self):
        """The network that is trained."""
        matched = SYSTEMS[self.system].matched
        return self.backbone if matched is None else MATCHED[self.backbone][matched]

    @property
    def teacher(self):
        """The backbone of the teacher, None without attention transfer."""
        return TEACHERS[self.backbone] if SYSTEMS[self.system].teacher else None

    @property
    def title(self):
        """What a table says."""
        system = SYSTEMS[self.system]
        title = f"{self.network} {system.title}".strip()
        return f"{title} ({self.teacher})" if self.teacher else title


def rows(number, *, networks=(), wanted=()):
    """Returns the `Row`s of a table in its order, the paper's and then, where there are some, the controls.

    Args:
        number: of the table, 1 to 6.
        networks: backbones in place of the table's; each then has all the table's systems.
        wanted: systems, or rows by name, to keep; all if none are named.

    Raises:
        UserError: one that is wanted is none, or the systems need what a network does not have.
    """
    table = TABLES[number]
    every = dict.fromkeys(system for systems in table.systems.values() for system in systems)
    plan = {network: tuple(every) for network in networks} or table.systems
    found = []
    for backbone, systems in plan.items():
        controls = CONTROLS if number == 2 else ()
        here = [Row(backbone, system) for system in (*systems, *controls)]
        here = [row for row in here if SYSTEMS[row.system].matched is None or backbone in MATCHED]
        found += [row for row in here if not SYSTEMS[row.system].teacher or backbone in TEACHERS]
    if unknown := [name for name in wanted if not any(name in (row.name, row.system) for row in found)]:
        known = ", ".join(dict.fromkeys(row.system for row in found))
        raise UserError(f"Table {number} has no row {unknown[0]!r}; there are {known}, each also as <network>+<row>")
    return [row for row in found if not wanted or row.name in wanted or row.system in wanted]

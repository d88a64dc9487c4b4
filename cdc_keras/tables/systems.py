"""The rows of Tables 1 to 6 as data: which systems there are, and what each trains."""

import dataclasses
from collections.abc import Mapping

from cdc_keras.errors import UserError
from cdc_keras.tables.paper import TABLES


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
    "wider": System("(control: plain, at least as many weights as are trained with the gate)", matched=0),
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
        """What --rows, run folders and the tables' files call it."""
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
    systems_of = {network: tuple(every) for network in networks} or table.systems
    controls = CONTROLS if number == 2 else ()
    all_rows = [Row(backbone, system) for backbone, own in systems_of.items() for system in (*own, *controls)]
    all_rows = [
        row
        for row in all_rows
        if (SYSTEMS[row.system].matched is None or row.backbone in MATCHED)
        and (not SYSTEMS[row.system].teacher or row.backbone in TEACHERS)
    ]
    if unknown := [name for name in wanted if not any(name in (row.name, row.system) for row in all_rows)]:
        names = ", ".join(dict.fromkeys(row.system for row in all_rows))
        raise UserError(f"Table {number} has no row {unknown[0]!r}; there are {names}, each also as <network>+<row>")
    return [row for row in all_rows if not wanted or row.name in wanted or row.system in wanted]

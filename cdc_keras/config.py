"""The configuration of a run: one frozen dataclass, from which the flags are made and which the run folder keeps.

Library code takes this object and never reads flags. A field's metadata hold its help text, its choices or bounds;
None means "the paper's value for this task", filled in by `RunConfig.resolved`.
"""

import dataclasses
import json
import re

from cdc_keras import choices
from cdc_keras.errors import UserError

PATHS = ("data_dir", "extractor", "teacher")  # the settings that are places on one machine
WITH_ANY_RUN = ("gate_init", "gate_compatibility")
INTERVAL = re.compile(r"([1-9]\d*)(s?)")


def _field(default, help, *, type=None, choices=(), low=None, high=None):  # noqa: A002
    metadata = {"help": help, "type": type or default.__class__, "choices": choices, "low": low, "high": high}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything that decides the result of a run, validated when it is made.

    Raises:
        UserError: a value is not one of its choices, or outside its bounds.
    """

    task: str = _field("extractor", "what to train", choices=choices.TASKS)
    seed: int = _field(0, "seeds initial weights, data order, augmentation and every cut", low=0)

    dataset: str = _field(
        "shapes", '"shapes", "folder" (class folders in --data_dir), or the name of any TFDS image set'
    )
    data_dir: str = _field(None, "where the data are; TFDS' own default folder if not given", type=str)
    image_size: int = _field(
        None, "pixels; the data set's own size if not given (paper: 32, 128, 224)", type=int, low=1
    )
    validation_fraction: float = _field(0.1, "share of training kept for choosing settings", low=0.0, high=0.99)
    train_limit: int = _field(None, "train on at most this many images; all if not given", type=int, low=1)
    background_bias: float = _field(
        0.0, "shapes only: probability that the category fixes the background", low=0.0, high=1.0
    )
    crop_padding: int = _field(
        None,
        "pixels reflected on each side before a random crop (paper: extractor 0; classifier 4 at 32 px, 16 at 128 px)",
        type=int,
        low=0,
    )
    crop_area: float = _field(
        None,
        "train on random resized crops of at least this share of the image (paper: on ImageNet, whose customary share "
        "is 0.08); no such crop if not given",
        type=float,
        low=0.0,
        high=1.0,
    )
    flip: bool = _field(True, "flip half of the training images horizontally (paper: yes)")

    epochs: int = _field(None, "passes over the training data (paper: extractor 600, classifier 200)", type=int, low=1)
    batch_size: int = _field(None, "images a step (paper: extractor 32, classifier 128)", type=int, low=1)
    learning_rate: float = _field(
        None, "initial learning rate (paper: extractor 2e-4 Adam, classifier 0.1 SGD)", type=float, low=0.0
    )
    test_every_epoch: bool = _field(
        False, "score the test split, too, after every epoch; to report, not to choose by (paper: the best is reported)"
    )
    checkpoint_every: str = _field(
        "600s", "save in mid-epoch, too, after so many steps (1000) or seconds (600s); the end of an epoch always is"
    )
    strategy: str = _field(
        "none",
        "devices to share every batch among: one (none), all of this machine (mirrored), or those of the machines in "
        "TF_CONFIG (multi_worker)",
        choices=choices.STRATEGIES,
    )
    precision: str = _field(
        "float32",
        "of convolutions and activations; weights, batch norm and losses stay float32. On a CPU float32 is fastest, "
        "but for bfloat16 where there are instructions for it; float16 is a hundred times slower (docs/precision.md)",
        choices=choices.PRECISIONS,
    )
    deterministic: bool = _field(
        False, "repeat a run to the bit, at some cost in speed; without it the seed fixes weights and data order alone"
    )
    steps_per_call: int = _field(1, "steps in one compiled call; more on an accelerator, up to an epoch", low=1)

    context: str = _field(
        "cdcgm",
        "context model of Table 1: all (cdcgm), no discriminator (cgm), no condition either (gm), or the features of a "
        "classifier, --network (dm)",
        choices=choices.CONTEXTS,
    )
    context_size: int = _field(
        None, "height of T, pixels (paper: 8 at 32 px, 8 or 16 at 128 px, 28 at 224 px)", type=int, low=1
    )
    context_channels: int = _field(64, "channels of E1's and G1's output, which make T (paper: 64)", low=1)
    skip: str = _field("add", "how E1's output joins G1's to make T", choices=choices.SKIPS)
    fool_weight: float = _field(1e-4, "lambda_fool, weight of the fooling loss after the ramp (paper: 1e-4)", low=0.0)
    fool_loss: str = _field("softmax", "fooling loss (paper: softmax, Eq. 1)", choices=choices.FOOL_LOSSES)
    fool_ramp_steps: int = _field(500_000, "steps over which lambda_fool rises from 0 (paper: 500,000)", low=0)
    fool_ramp_fraction: float = _field(
        None,
        "share of training over which lambda_fool rises, instead of steps (paper: 0.53)",
        type=float,
        low=0.0,
        high=1.0,
    )
    repulsive_weight: float = _field(1e-3, "weight of the repulsive loss; 0 leaves it out (paper: 1e-3)", low=0.0)
    repulsive_delta: float = _field(0.01, "margin of the repulsive loss in image units (paper: 0.01)", low=0.0)
    discriminator_width: int = _field(
        64, "channels of the discriminator's first convolution (paper: unspecified)", low=1
    )
    discriminators: int = _field(1, "number of discriminators, whose fooling losses are averaged (paper: 1)", low=1)
    discriminator_steps: int = _field(1, "updates of the discriminators for each of the auto-encoder (paper: 1)", low=1)
    discriminator_reset_epochs: int = _field(
        0, "epochs after which a discriminator, each in turn, starts from new weights; never if 0 (paper: never)", low=0
    )
    clip_norm: float = _field(
        5.0, "each player's gradients are clipped at this global norm (Lample et al.: 5)", low=0.0
    )

    network: str = _field("resnet20", f"classifier: {choices.NETWORKS}")
    block_attention: str = _field(
        "none",
        "attention in every block of the network (Tables 3 to 6)",
        choices=choices.BLOCK_ATTENTIONS,
    )
    normalization: str = _field(
        "none",
        "bring images to mean 0 and deviation 1 of ImageNet inside the classifier (paper: on ImageNet)",
        choices=choices.NORMALIZATIONS,
    )
    recipe: str = _field(
        "wrn",
        "SGD with Nesterov momentum 0.9 and weight decay 5e-4 (wrn), or with neither (paper)",
        choices=choices.RECIPES,
    )
    warmup_epochs: float = _field(2.0, "epochs at learning rate 0.001 before the schedule (paper: 2)", low=0.0)
    learning_rate_drops: tuple = _field(
        (0.3, 0.6, 0.8),
        "shares of training after which the learning rate drops (paper: 0.3,0.6,0.8; ImageNet32 and ImageNet-150K "
        "0.25,0.5,0.75; ImageNet 0.3,0.6,0.9)",
    )
    learning_rate_factor: float = _field(0.2, "factor of every drop (paper: 0.2; ImageNet 0.1)", low=0.0, high=1.0)
    teacher: str = _field(
        None,
        "classifier whose attention maps are transferred (AT of Tables 3 to 6): a run folder, or zoo:<name>",
        type=str,
    )
    transfer_weight: float = _field(1e3, "weight of the attention-transfer loss (Zagoruyko & Komodakis: 1000)", low=0.0)
    extractor: str = _field(
        None,
        "extractor whose context gates the classifier: a run folder, or zoo:<name>; plain if not given",
        type=str,
    )
    gate_context: str = _field(
        "own",
        "T that infers the gate: the image's own, or a control: of the image before it in the batch (shuffled), or of "
        "an extractor that was never trained (untrained)",
        choices=choices.GATE_CONTEXTS,
    )
    gate_sites: tuple = _field(
        (),
        "where to gate, comma-separated: resolutions such as 16x16 at which a group ends, or names of layers (paper: "
        "T's resolution and twice it; Table 2 also 16x16 and 8x8 alone)",
    )
    gate_init: str = _field(
        "identity",
        "how the gate starts: with M exactly 1 and at most 1.05 (identity); with M 0.95, as released networks did "
        "(neutral); with M 1 and at most 2, where it moves more (centred); or He everywhere (he) (paper: unspecified)",
        choices=choices.GATE_INITS,
    )
    gate_reduction: int = _field(None, "r by which R and L3 narrow (paper: 2 at 32 px, 4 above)", type=int, low=1)
    gate_residual: bool = _field(True, "False: without the residual unit R (w/o RU of Table 2)")
    gate_attention: bool = _field(True, "False: R alone (+ RU of Table 2)")
    gate_compatibility: str = _field(
        "mean",
        "products of the channel compatibility C: averaged, summed (paper: Eq. 4), or no C (w/o CC of Table 2)",
        choices=choices.COMPATIBILITIES,
    )
    gate_after_relu: bool = _field(False, "True: gate after the activation (Table 2)")
    gate_weight_decay: bool = _field(True, "decay the gate's weights as the network's; False: not at all (recipe wrn)")
    gate_learning_rate_factor: float = _field(1.0, "the gate's learning rate over the network's", low=0.0)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _check(field, getattr(self, field.name))
        try:
            choices.find_network(self.network)
        except ValueError as error:
            raise UserError(str(error)) from None
        if not INTERVAL.fullmatch(self.checkpoint_every):
            raise UserError(f"checkpoint_every is a number of steps or seconds (600s), not {self.checkpoint_every!r}")
        if self.precision == "mixed_float16" and self.strategy != "none":
            raise UserError(
                "mixed_float16 works on one device only: Keras' loss scaling fails under several replicas (keras issue "
                "18666); take mixed_bfloat16, or strategy=none"
            )
        drops = self.learning_rate_drops
        if any(not isinstance(x, float) or not 0 < x < 1 for x in drops) or list(drops) != sorted(set(drops)):
            raise UserError(f"learning_rate_drops are rising shares of training between 0 and 1, not {drops}")
        if self.crop_area is not None and (self.crop_area == 0 or self.crop_padding):
            raise UserError("crop_area is above 0 and takes the place of crop_padding; give one of the two")
        if not self.gate_attention and self.gate_context != "own":
            raise UserError("gate_attention=False uses no context; leave gate_context out, or gate_attention on")
        if self.teacher is not None and self.task != "classifier":
            raise UserError("teacher transfers attention to a classifier; leave it out, or set task=classifier")
        if self.task == "classifier" and not self.gate_attention and self.extractor is not None:
            raise UserError("gate_attention=False uses no context; leave extractor out, or gate_attention on")
        if self.task == "extractor" and self.extractor is not None:
            raise UserError("extractor names the context of a classifier; leave it out, or set task=classifier")
        # Not those whose defaults have changed: they stand in the flagfile of every run, that of a plain one, too.
        gate = [f.name for f in dataclasses.fields(self) if f.name.startswith("gate_") and f.name not in WITH_ANY_RUN]
        changed = [name for name in gate if getattr(self, name) != type(self).__dataclass_fields__[name].default]
        if changed and not self.gated:
            raise UserError(f"{', '.join(changed)} would do nothing: there is no gate without extractor")

    def resolved(self, image_size):
        """Returns the config with the paper's values for this task where size, length, rate or padding were None.

        Args:
            image_size: pixels, of the data set that was loaded.
        """
        extractor = not self.classifies
        paper = {
            "image_size": image_size,
            "crop_padding": 0 if extractor or self.crop_area is not None else image_size // 8,
            "epochs": 600 if extractor else 200,
            "batch_size": 32 if extractor else 128,
            "learning_rate": 2e-4 if extractor else 0.1,
        }
        config = dataclasses.replace(self, **{k: v for k, v in paper.items() if getattr(self, k) is None})
        if config.crop_padding >= image_size:
            raise UserError(f"crop_padding is less than image_size, {image_size}, but {config.crop_padding} was given")
        return config

    @property
    def classifies(self):
        """Whether what is trained is a classifier: also a context model that is one."""
        return self.task == "classifier" or self.context == "dm"

    @property
    def gated(self):
        """Whether the classifier has a gate."""
        return self.task == "classifier" and (self.extractor is not None or not self.gate_attention)

    def effective(self):
        """Returns the settings as a dict, without those that do nothing: of a gate, or of its attention, there is none.

        Two configs with equal ones say the same run, but for `runs.FREE_TO_CHANGE`.
        """
        idle = () if self.gate_attention else ("gate_context", "gate_compatibility")
        values = dataclasses.asdict(self)
        return {k: v for k, v in values.items() if k not in idle and (self.gated or not k.startswith("gate_"))}

    def without_paths(self):
        """Returns the settings as a dict, without `PATHS`."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in PATHS}

    def to_json(self):
        """Returns the config as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text):
        """Returns the config that `to_json` wrote; settings that came later have their default, as they had then.

        Raises:
            UserError: for settings that are unknown.
        """
        values = json.loads(text)
        if unknown := sorted(set(values) - {field.name for field in dataclasses.fields(cls)}):
            raise UserError(f"this config was written by another version: {unknown} are unknown; train the run again")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def _check(field, value):
    allowed = field.metadata
    if value is None and field.default is None:
        return
    if allowed["choices"] and value not in allowed["choices"]:
        raise UserError(f"{field.name} is one of {', '.join(allowed['choices'])}, not {value!r}")
    if allowed["low"] is not None and value < allowed["low"] or allowed["high"] is not None and value > allowed["high"]:
        upper = f" and at most {allowed['high']}" if allowed["high"] is not None else ""
        raise UserError(f"{field.name} is at least {allowed['low']}{upper}, but {value} was given")

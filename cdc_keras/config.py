"""The configuration of a run: one frozen dataclass, from which the flags are made and which the run folder keeps.

Library code takes this object and never reads flags. A field's metadata hold its help text, the group of flags it is
listed in, and its allowed words or bounds. None means "the paper's value for this task", filled in by
`RunConfig.resolved`.
"""

import dataclasses
import functools
import json

from cdc_keras import choices
from cdc_keras.conflicts import check_together
from cdc_keras.errors import UserError
from cdc_keras.fields import GROUPS, check, field

PATHS = ("data_dir", "extractor", "teacher", "painter")  # the settings that are places on one machine


_run, _data, _training, _devices, _extractor, _classifier, _gate, _teacher, _experiment = (
    functools.partial(field, group) for group in GROUPS
)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything that decides the result of a run, validated when it is made.

    Raises:
        UserError: a value is not one of its choices, or outside its bounds.
    """

    task: str = _run("extractor", "what to train", choices=choices.TASKS)
    seed: int = _run(0, "decides initial weights, order of the images, augmentation and every cut of the data", low=0)

    dataset: str = _data(
        "shapes",
        "shapes (drawn by this program), folder (one folder of images per category in --data_dir), imagenet150k, or "
        "the name of an image set of TensorFlow Datasets such as cifar100",
    )
    data_dir: str = _data(None, "folder of the data; if not given, that of TensorFlow Datasets")
    image_size: int = _data(None, "height and width of the images in pixels; if not given, the data set's own", low=1)
    validation_fraction: float = _data(0.1, "share of training images kept for choosing settings", low=0.0, high=0.99)
    train_limit: int = _data(None, "train on at most so many images; if not given, on all", low=1)
    background_bias: float = _data(0.0, "shapes: probability that the category fixes the background", low=0.0, high=1.0)
    difficulty: float = _data(0.0, "shapes: less contrast, more noise, bars behind the shape", low=0.0, high=1.0)
    crop_padding: int = _data(
        None,
        "pixels by which an image is enlarged on each side, by reflection, before a random crop (default: the "
        "paper's, extractor 0, classifier an eighth of the image)",
        low=0,
    )
    crop_area: float = _data(
        None,
        "train on random crops of at least this share of the image's area, resized; if not given, without (paper: on "
        "ImageNet; 0.08 is customary there)",
        low=0.0,
        high=1.0,
    )
    flip: bool = _data(True, "mirror half of the training images (paper: yes)")
    augmentation: str = _data(
        "none", "randaugment alters images, cutmix and mixup join two (paper: none)", choices=choices.AUGMENTATIONS
    )

    epochs: int = _training(
        None, "passes over the training images (default: the paper's, extractor 600, classifier 200)", low=1
    )
    batch_size: int = _training(None, "images per step (default: the paper's, extractor 32, classifier 128)", low=1)
    learning_rate: float = _training(
        None, "initial rate (default: the paper's, extractor 2e-4 with Adam, classifier 0.1 with SGD)", low=0.0
    )
    test_every_epoch: bool = _experiment(False, "also score the test images after every epoch, as the paper does")
    checkpoint_every: str = _training(
        "600s", "also save within an epoch, after so many steps (1000) or seconds (600s); the end of an epoch is saved"
    )
    strategy: str = _devices(
        "none",
        "devices that share every batch: none is one device, mirrored all of this machine, multi_worker those of the "
        "machines in the environment variable TF_CONFIG",
        choices=choices.STRATEGIES,
    )
    precision: str = _devices(
        "float32",
        "numbers that convolutions and activations compute with; weights and losses stay float32. auto takes bfloat16 "
        "where the device has instructions for it and float32 elsewhere, and the run keeps it (docs/precision.md)",
        choices=(*choices.PRECISIONS, choices.AUTO),
    )
    deterministic: bool = _devices(
        False, "repeat a run to the last bit, at some cost in speed; without, the seed fixes initial weights and order"
    )
    steps_per_call: int = _devices(
        1, "training steps in one compiled call; 10 or more keep an accelerator busy, at most an epoch", low=1
    )

    context: str = _experiment(
        "cdcgm",
        "what makes T (Table 1): cdcgm is the paper's method, cgm leaves out the discriminator, gm also the category "
        "that the decoder is told, dm takes the features of a classifier, --network",
        choices=choices.CONTEXTS,
    )
    context_size: int = _extractor(
        None, "height of T (default: the paper's, 8 at 32 and 128 px, where 16 is possible, and 28 at 224 px)", low=1
    )
    context_channels: int = _extractor(64, "channels of T (paper: 64)", low=1)
    skip: str = _experiment("add", "whether E1's output is added to G1's to make T (paper: add)", choices=choices.SKIPS)
    fool_weight: float = _extractor(
        1e-4, "lambda_fool, the final weight of the loss that rewards fooling the discriminator (paper: 1e-4)", low=0.0
    )
    fool_loss: str = _experiment("softmax", "fooling loss (paper: softmax, Eq. 1)", choices=choices.FOOL_LOSSES)
    fool_ramp_steps: int = _extractor(
        500_000, "steps over which lambda_fool rises from 0 to its final value (paper: 500,000)", low=0
    )
    fool_ramp_fraction: float = _extractor(
        None, "the same as a share of the training, which short runs need (paper: 0.53)", low=0.0, high=1.0
    )
    repulsive_weight: float = _extractor(
        1e-3, "weight of the loss that lets a wrong category change the reconstruction; 0: none (paper: 1e-3)", low=0.0
    )
    repulsive_delta: float = _extractor(
        0.01, "difference of the reconstructions, images in [-1, 1], above which that loss is 0 (paper: 0.01)", low=0.0
    )
    conditioning: str = _experiment(
        "planes",
        "how the decoder is told the category: planes are constant channels (paper), film scales and shifts its own",
        choices=choices.CONDITIONINGS,
    )
    decoder_blocks: int = _experiment(0, "residual blocks in the decoder (paper: none)", low=0)
    context_noise: float = _experiment(
        0.0, "standard deviation of the noise that T has in training and ever after (paper: none)", low=0.0
    )
    prior_weight: float = _experiment(
        0.0, "weight of half of T's squared length, which keeps T small beside its noise (paper: none)", low=0.0
    )
    counterfactual_weight: float = _experiment(
        0.0,
        "weight of the loss that rewards reconstructions under another category for being taken for it by an image "
        "classifier; rises as lambda_fool does (paper: none)",
        low=0.0,
    )
    cycle_weight: float = _experiment(
        0.0, "weight of their error when encoded again and decoded under their own category (paper: none)", low=0.0
    )
    critic_weight: float = _experiment(
        0.0,
        "weight of the loss that rewards them for hiding from a second image classifier which category the image had; "
        "rises likewise (paper: none)",
        low=0.0,
    )
    discriminator_width: int = _experiment(64, "channels of the discriminator's first layer (paper: not given)", low=1)
    discriminator_dropout: float = _experiment(
        0.3, "share of its values dropped (Lample et al.: 0.3)", low=0.0, high=0.9
    )
    discriminator_noise: float = _experiment(
        1.0, "share of T's noise that it sees: it learns sooner from a clearer T (paper: no noise)", low=0.0, high=1.0
    )
    discriminators: int = _experiment(1, "number of discriminators; fooling losses are averaged (paper: 1)", low=1)
    discriminator_steps: int = _experiment(
        1, "steps of the discriminators for each step of the auto-encoder (paper: 1)", low=1
    )
    discriminator_reset_epochs: int = _experiment(
        0, "epochs after which one discriminator in turn starts from new weights; 0 is never (paper: never)", low=0
    )
    annealing: float = _experiment(
        0.0, "share of an extractor's training, at its end, in which its rate falls to 0 (paper: 0)", low=0.0, high=1.0
    )
    decoder_epochs: int = _experiment(
        0, "epochs, at the end, in which the decoder learns alone and T stays as it is (paper: none)", low=0
    )
    clip_norm: float = _experiment(5.0, "largest norm of a player's gradient (Lample et al.: 5)", low=0.0)

    network: str = _classifier("resnet20", f"network to train: {choices.NETWORKS}")
    block_attention: str = _classifier(
        "none", "attention in every block of the network (Tables 3 to 6)", choices=choices.BLOCK_ATTENTIONS
    )
    normalization: str = _classifier(
        "none", "standardize images inside the network (paper: on ImageNet)", choices=choices.NORMALIZATIONS
    )
    recipe: str = _classifier(
        "wrn", "SGD with Nesterov momentum 0.9 and weight decay 5e-4 (wrn), or neither (paper)", choices=choices.RECIPES
    )
    warmup_epochs: float = _classifier(2.0, "epochs at learning rate 0.001 before the schedule (paper: 2)", low=0.0)
    learning_rate_drops: tuple = _classifier(
        (0.3, 0.6, 0.8),
        "shares of the training after which the learning rate drops, separated by commas (paper: 0.3,0.6,0.8; "
        "ImageNet32 and ImageNet-150K 0.25,0.5,0.75; ImageNet 0.3,0.6,0.9)",
    )
    learning_rate_factor: float = _classifier(
        0.2, "what a drop multiplies the learning rate by (paper: 0.2; ImageNet 0.1)", low=0.0, high=1.0
    )
    painter: str = _classifier(None, "extractor whose decoder paints training images: runs/... (default: --extractor)")
    counterfactual_share: float = _experiment(
        0.0, "share of a classifier's batch that it paints under another category (paper: 0)", low=0.0, high=1.0
    )
    counterfactual_control: bool = _experiment(False, "paint them under their own category instead, as a control")
    teacher: str = _teacher(
        None, "trained classifier whose attention maps are imitated (AT in Tables 3 to 6): runs/... or zoo:<name>"
    )
    transfer_weight: float = _teacher(1e3, "weight of that loss (Zagoruyko & Komodakis: 1000)", low=0.0)
    extractor: str = _gate(
        None, "trained extractor whose T drives the gate: runs/... or zoo:<name>; if not given, there is no gate"
    )
    gate_context: str = _experiment(
        "own",
        "T that drives the gate: the image's own, or as a control that of another image (shuffled) or of an extractor "
        "with initial weights (untrained)",
        choices=choices.GATE_CONTEXTS,
    )
    gate_sites: tuple = _gate(
        (),
        "where to gate, separated by commas: resolutions such as 16x16, or names of layers; if not given, T's "
        "resolution and twice it, as in the paper",
    )
    gate_init: str = _experiment(
        "identity",
        "start of the gate: identity changes nothing, neutral has M at 0.95, centred at 1, spread at V; he is He's "
        "(paper: open)",
        choices=choices.GATE_INITS,
    )
    gate_spread: bool = _gate(
        False, "M is also inferred from V, where the extractor's picture changes with the category (paper: no)"
    )
    gate_reduction: int = _experiment(
        None,
        "factor by which R and the layer before C narrow the channels (default: the paper's, 2 at 32 px, 4 above)",
        low=1,
    )
    gate_residual: bool = _experiment(True, "false leaves out the residual unit R (w/o RU in Table 2)")
    gate_attention: bool = _experiment(True, "false leaves out M and C, so that R is all (+ RU in Table 2)")
    gate_compatibility: str = _experiment(
        "mean",
        "C compares T with the features of a channel, position by position: mean or sum (paper: sum, Eq. 4) of the "
        "products; none leaves C out (w/o CC in Table 2)",
        choices=choices.COMPATIBILITIES,
    )
    gate_after_relu: bool = _experiment(False, "gate after the activation instead of before it (Table 2)")
    gate_weight_decay: bool = _experiment(True, "false exempts the gate's weights from weight decay (recipe wrn)")
    gate_learning_rate_factor: float = _experiment(1.0, "the gate's learning rate over the network's", low=0.0)

    def __post_init__(self):
        for setting in dataclasses.fields(self):
            check(setting, getattr(self, setting.name))
        check_together(self)

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

        Two configs with equal ones say the same run, but for `runs.folder.FREE_TO_CHANGE`.
        """
        idle = () if self.gate_attention else ("gate_context", "gate_compatibility", "gate_spread")
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
        """Returns the config that `to_json` wrote; a setting that is not in it has its default.

        Raises:
            UserError: for settings that are unknown.
        """
        values = json.loads(text)
        if unknown := sorted(set(values) - {f.name for f in dataclasses.fields(cls)}):
            raise UserError(f"{unknown} are no settings of a run; train the run again")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

"""The settings of the extractor's training, by the names that they have in `RunConfig`."""

import dataclasses

from cdc_keras.choices import CONDITIONINGS, FOOL_LOSSES, SKIPS
from cdc_keras.networks import autoencoder

CONTEXTS = ("cdcgm", "cgm", "gm")  # those of `choices.CONTEXTS` with a decoder


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a `Disentangler` is built and trained. Defaults are the paper's.

    Where the paper is silent, they are those of Lample et al. 2017, "in the same way" as whom it trains (A.1).

    Attributes:
        context, ..., discriminator_steps: as the settings of `RunConfig` of these names, without "dm".
        seed: seeds the random draws of "wrong_class_ce", of `Disentangler.renew_discriminator` and of
            `CounterfactualDisentangler`.

    Raises:
        ValueError: a word is none of those allowed.
    """

    context: str = "cdcgm"
    context_size: int | None = None
    context_channels: int = autoencoder.CONTEXT_CHANNELS
    skip: str = "add"
    fool_weight: float = 1e-4
    fool_ramp_steps: int = 500_000
    fool_loss: str = "softmax"
    repulsive_weight: float = 1e-3
    repulsive_delta: float = 0.01
    conditioning: str = "planes"
    decoder_blocks: int = 0
    context_noise: float = 0.0
    prior_weight: float = 0.0
    counterfactual_weight: float = 0.0
    cycle_weight: float = 0.0
    critic_weight: float = 0.0
    discriminator_width: int = 64
    discriminator_dropout: float = 0.3
    discriminator_noise: float = 1.0
    discriminators: int = 1
    discriminator_steps: int = 1
    seed: int = 0

    def __post_init__(self):
        words_of = {"context": CONTEXTS, "skip": SKIPS, "fool_loss": FOOL_LOSSES, "conditioning": CONDITIONINGS}
        for name, words in words_of.items():
            if (value := getattr(self, name)) not in words:
                raise ValueError(f"{name} must be one of {', '.join(words)}, not {value!r}")

    @property
    def conditional(self) -> bool:
        """Whether the decoder is told the category."""
        return self.context != "gm"

    @property
    def adversarial(self) -> bool:
        """Whether there is a discriminator."""
        return self.context == "cdcgm"

    @property
    def beyond_paper(self) -> bool:
        """Whether it takes a `trainers.counterfactual.CounterfactualDisentangler`."""
        return self.counterfactual or self.context_noise > 0 or self.prior_weight > 0

    @property
    def counterfactual(self) -> bool:
        """Whether images are decoded under other categories, to be judged or encoded again."""
        return max(self.counterfactual_weight, self.cycle_weight, self.critic_weight) > 0

    @property
    def repulsive(self) -> bool:
        """Whether there is a repulsive loss."""
        return self.conditional and self.repulsive_weight > 0

    @property
    def metrics(self) -> list[str]:
        """The names of what is measured in training."""
        names = ["reconstruction_loss"]
        names += ["repulsive_loss", "repulsive_active"] if self.repulsive else []
        names += ["discriminator_loss", "discriminator_accuracy"] if self.adversarial else []
        names += ["fooling_loss", "fooling_gradient_norm", "lambda_fool"] if self.adversarial else []
        names += ["prior_loss"] if self.prior_weight else []
        if self.counterfactual_weight:
            names += ["image_classifier_loss", "counterfactual_loss", "counterfactual_accuracy"]
        names += ["critic_accuracy", "critic_loss"] if self.critic_weight else []
        return names + (["cycle_loss"] if self.cycle_weight else [])

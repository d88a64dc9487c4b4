"""The settings of the extractor's training, by the names that they have in `RunConfig`."""

import dataclasses

from cdc_keras.choices import FOOL_LOSSES, SKIPS
from cdc_keras.networks import autoencoder

CONTEXTS = ("cdcgm", "cgm", "gm")  # those of `choices.CONTEXTS` with a decoder


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a `Disentangler` is built and trained. Defaults are the paper's.

    Where the paper is silent, they are those of Lample et al. 2017, "in the same way" as whom it trains (A.1).

    Attributes:
        context, ..., discriminator_steps: as the settings of `RunConfig` of these names, without "dm".
        seed: seeds the random draws of "wrong_class_ce" and of `Disentangler.renew_discriminator`.

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
    discriminator_width: int = 64
    discriminators: int = 1
    discriminator_steps: int = 1
    seed: int = 0

    def __post_init__(self):
        for name, words in (("context", CONTEXTS), ("skip", SKIPS), ("fool_loss", FOOL_LOSSES)):
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
    def repulsive(self) -> bool:
        """Whether there is a repulsive loss."""
        return self.conditional and self.repulsive_weight > 0

"""Settings of a run that are allowed one by one, but not together."""

import dataclasses
import re

from cdc_keras import choices
from cdc_keras.errors import UserError

INTERVAL = re.compile(r"([1-9]\d*)(s?)")


def check_together(config):
    """Raises UserError, in one sentence, where settings of a `RunConfig` exclude one another or do nothing."""
    choices.find_network(config.network)
    if not INTERVAL.fullmatch(config.checkpoint_every):
        raise UserError(f"checkpoint_every is a number of steps or seconds (600s), not {config.checkpoint_every!r}")
    if config.precision == "mixed_float16" and config.strategy != "none":
        raise UserError(
            "mixed_float16 works on one device only: Keras' loss scaling fails under several replicas (keras issue "
            "18666); take mixed_bfloat16, or strategy=none"
        )
    if config.augmentation != "none" and config.task != "classifier":
        raise UserError("augmentation changes the images of a classifier; leave it out, or set task=classifier")
    if config.augmentation in ("cutmix", "mixup") and config.strategy != "none":
        raise UserError(f"{config.augmentation} mixes the images of one batch on one device; set strategy=none")
    drops = config.learning_rate_drops
    if any(not isinstance(x, float) or not 0 < x < 1 for x in drops) or list(drops) != sorted(set(drops)):
        raise UserError(f"learning_rate_drops are rising shares of training between 0 and 1, not {drops}")
    if config.crop_area is not None and (config.crop_area == 0 or config.crop_padding):
        raise UserError("crop_area is above 0 and takes the place of crop_padding; give one of the two")
    if not config.gate_attention and config.gate_context != "own":
        raise UserError("gate_attention=False uses no context; leave gate_context out, or gate_attention on")
    if config.gate_init == "spread" and not config.gate_spread:
        raise UserError("gate_init=spread starts M at V; set gate_spread=true")
    if config.gate_spread and not config.gate_attention:
        raise UserError("gate_attention=False uses no V; leave gate_spread out, or gate_attention on")
    if config.teacher is not None and config.task != "classifier":
        raise UserError("teacher transfers attention to a classifier; leave it out, or set task=classifier")
    if config.task == "classifier" and not config.gate_attention and config.extractor is not None:
        raise UserError("gate_attention=False uses no context; leave extractor out, or gate_attention on")
    if config.task == "extractor" and config.extractor is not None:
        raise UserError("extractor names the context of a classifier; leave it out, or set task=classifier")
    gate = [f.name for f in dataclasses.fields(config) if f.name.startswith("gate_")]
    changed = [name for name in gate if getattr(config, name) != type(config).__dataclass_fields__[name].default]
    if changed and not config.gated:
        raise UserError(f"{', '.join(changed)} would do nothing: there is no gate without extractor")
    if config.counterfactual_share and (config.task != "classifier" or not (config.painter or config.extractor)):
        raise UserError("counterfactual_share paints images of a classifier; set task=classifier and painter")
    if not config.counterfactual_share and (config.painter or config.counterfactual_control):
        raise UserError("painter and counterfactual_control would do nothing; set counterfactual_share")
    if config.counterfactual_share and config.augmentation in ("cutmix", "mixup"):
        raise UserError(f"{config.augmentation} gives an image several categories; leave counterfactual_share out")
    if config.decoder_epochs and (config.classifies or (config.epochs or 600) < config.decoder_epochs):
        raise UserError("decoder_epochs are epochs of an extractor with a decoder, and no more than epochs")
    players = ("counterfactual_weight", "cycle_weight", "critic_weight")
    named = [name for name in players if getattr(config, name)]
    if named and config.context not in ("cdcgm", "cgm"):
        raise UserError(f"{', '.join(named)} need a decoder that is told the category; set context=cdcgm or cgm")

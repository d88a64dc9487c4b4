"""What only drawn scenes allow: the truth under another category, and the place of the object."""

from cdc_keras.audit import decoding
from cdc_keras.audit.bootstrap import with_interval
from cdc_keras.data.shapes import counterfactual_shapes
from cdc_keras.visualize.maps import iou, of_another, pointing
from cdc_keras.zoo.findings import features_title

INSIDE = 0.25  # a place of a map counts as the object's if so much of it lies in the mask


def measured(extractor, disentangler, config, count, seed):
    """Returns how well G2 paints another category, and where V sees the object, on scenes nobody trained on.

    Args:
        extractor: functional model, images in [-1, 1] -> T.
        disentangler: its trained `Disentangler`.
        config: the `RunConfig` it was trained with, on `shapes`.
        count: number of scenes.
        seed: of the scenes.

    Returns:
        {"counterfactual_mse", "spread_iou", "spread_iou_of_another", "spread_pointing"}, each {"mean", "low", "high"}
        with a 95% bootstrap interval. The error is that of G2(T(x), y') against x drawn as y'. The others compare V
        (`decoding.spread`), and V of another image, with the mask at T's resolution.
    """
    shown = {"difficulty": config.difficulty, "image_size": config.image_size}
    split, others, images = counterfactual_shapes(count, seed=seed, **shown)
    context = decoding.contexts(extractor, split.images)
    maps, masks = decoding.spread(disentangler, context), split.factors["mask"]
    own, another = overlaps(maps, masks)
    values = {
        "counterfactual_mse": decoding.reconstruction_errors(disentangler, images, context, others),
        "spread_iou": own,
        "spread_iou_of_another": another,
        "spread_pointing": pointing(maps, masks_at(masks, maps.shape[1])),
    }
    return {name: with_interval(x, seed) for name, x in values.items()}


def overlaps(maps, masks):
    """Returns the IoU of maps (N, h, w) with masks (N, S, S) at their resolution, and of another image's: (N,) each."""
    at = masks_at(masks, maps.shape[1])
    return iou(maps, at), iou(of_another(maps), at)


def masks_at(masks, size):
    """Returns masks (N, S, S) at another resolution, (N, size, size) bool."""
    count, side = len(masks), masks.shape[1] // size
    return masks.reshape(count, size, side, size, side).mean(axis=(2, 4)) > INSIDE


def sentences(name, found):
    """Returns what `measured` found on T of `name`, "context" or that of a rival, as sentences."""
    title = features_title(name)
    error, own, another, inside = (f"{x['mean']:.3f} ({x['low']:.3f} to {x['high']:.3f})" for x in found.values())
    return [
        f"Counterfactual MSE from {title}: {error}. It compares fresh scenes, decoded under another category, with "
        "the same scenes drawn in that category.",
        f"V of {title} shows where the decoded image changes with the category. Its IoU with the object is {own}, that "
        f"of another image's V {another}. Its highest place lies in the object for a share of {inside}.",
    ]

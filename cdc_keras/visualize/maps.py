"""What networks look at, as maps over the image; and how well such a map finds an object whose mask is known."""

import functools

import keras
import numpy as np
from keras import ops
from PIL import Image

from cdc_keras.data.pipeline import in_batches, scale
from cdc_keras.errors import UserError
from cdc_keras.gate.parts import ATTENTION, SPREAD, parts
from cdc_keras.networks import graph

COARSEST = 4  # positions along a side of a feature map; one of fewer does not say where


def focus_map(features, size):
    """Returns where features are strong (Zagoruyko & Komodakis 2017): a tensor (B, size, size) of floats in [0, 1].

    The mean over channels of the squares, up-sampled bicubically, brought to [0, 1] image by image; a map that is the
    same everywhere gives 0.

    Args:
        features: (B, h, w, C) float activations.
        size: height and width of the map, pixels.
    """
    return _map(ops.mean(ops.square(ops.cast(features, "float32")), axis=-1), size)


def stretch(maps):
    """Returns maps (B, H, W) brought linearly to [0, 1] image by image, 0 where an image is constant."""
    low, high = ops.min(maps, axis=(1, 2), keepdims=True), ops.max(maps, axis=(1, 2), keepdims=True)
    return (maps - low) / ops.where(high > low, high - low, 1)


def attention_maps(images, *, gated=None, plain=None, site=None, grad_cam=True):
    """Returns what a gated and a plain network look at, {name: (N, S, S) NumPy floats in [0, 1]}, as Fig. 4 orders it.

    "M" and, if the gate sees it, "V", up-sampled to the nearest; the focus "before the gate", "suppressed" by M and C,
    and "after R", at `site`; that of the "last features, gated" and "last features, plain"; and Grad-CAM of both for
    the category each of them says. What a gate does not have, M without attention, is left out. Focus is
    `focus_map` after ReLU.

    Deviation: where Fig. 4 has the last group, these are `last_features`: VGG's has 2 x 2 positions at 32 px.

    Args:
        images: (N, S, S, 3) uint8.
        gated: functional classifier that `gate.attach` made, or None.
        plain: the plain one, or None.
        site: name of the gated layer; the shallowest by default, as in Fig. 4, behind which other groups come.
        grad_cam: False leaves Grad-CAM out, which needs TensorFlow.

    Raises:
        ValueError: naming the gated sites, if `site` is none of them.
    """
    maps = {} if gated is None else _at_the_gate(gated, images, site)
    networks = {name: network for name, network in (("gated", gated), ("plain", plain)) if network is not None}
    for name, network in networks.items():
        maps |= _focused(network, images, {f"last features, {name}": last_features(network)})
    if grad_cam:
        maps |= {f"Grad-CAM, {name}": grad_cam_maps(network, images) for name, network in networks.items()}
    return maps


def _at_the_gate(gated, images, site):
    gate = parts(gated)
    gates = {x.name: x for x in gate.sites}
    site = next(iter(gates), None) if site is None else site
    if site not in gates:
        raise ValueError(f"no gate at {site}; gated are: {', '.join(gates) or 'no layers of this model at all'}")
    shown = {"before the gate": site, "suppressed": gates[site].suppressed, "after R": gates[site].out}
    if shown["suppressed"] == site:  # without attention
        del shown["suppressed"]
    seen = {"M": ATTENTION} if gate.attention else {}
    if any(layer.name == SPREAD for layer in gated.layers):
        seen["V"] = SPREAD
    maps = _of_positions(gated, images, seen) if seen else {}
    return maps | _focused(gated, images, shown)


def last_features(classifier):
    """Returns the name of the layer that gives the last feature map (B, H, W, C) of 4 x 4 positions or more."""

    def says_where(shape):
        return len(shape) == 4 and shape[1] is not None and min(shape[1:3]) >= COARSEST

    calls = graph.trace(classifier)[1]
    return [layer.name for layer, _, output in calls if says_where(getattr(output, "shape", ()))][-1]


def grad_cam_maps(classifier, images):
    """Returns where the logit of a category comes from (Selvaraju et al. 2017): (N, S, S) NumPy floats in [0, 1].

    The last feature map's channels, weighed by the mean over the positions of the logit's gradient, above zero.

    Args:
        classifier: functional model, images in [-1, 1] -> logits.
        images: (N, S, S, 3) uint8.

    Raises:
        UserError: the backend is not TensorFlow.
    """
    if keras.backend.backend() != "tensorflow":
        raise UserError(
            f"Grad-CAM takes TensorFlow's gradients; set KERAS_BACKEND=tensorflow, not {keras.config.backend()}"
        )
    import tensorflow as tf

    rebuilt, tensors = graph.outputs(classifier)
    model = keras.Model(rebuilt.inputs, [tensors[last_features(classifier)], rebuilt.outputs[0]])

    def cam(batch):
        inputs = tf.convert_to_tensor(scale(batch))
        with tf.GradientTape() as tape:
            tape.watch(inputs)  # or a frozen network would leave no trace
            features, logits = model(inputs, training=False)
            score = tf.reduce_sum(tf.reduce_max(logits, axis=-1))
        weights = tf.reduce_mean(tape.gradient(score, features), axis=(1, 2), keepdims=True)
        return _map(tf.nn.relu(tf.reduce_sum(weights * features, axis=-1)), batch.shape[1])

    return in_batches(cam, images)


def iou(maps, masks):
    """Returns the overlap of the hottest part of each map with its mask, as large as the mask: (N,) in [0, 1].

    Intersection over union, so 1 is the mask itself; pixels that tie at the edge of the part count by their share.

    Args:
        maps: (N, H, W) floats.
        masks: (N, H, W) bool, each with a pixel that is true.
    """
    maps, masks = maps.reshape(len(maps), -1), masks.reshape(len(masks), -1)
    area = masks.sum(axis=1)
    edge = np.take_along_axis(-np.sort(-maps, axis=1), area[:, None] - 1, axis=1)
    above, ties = maps > edge, maps == edge
    shares = (area - above.sum(axis=1)) / ties.sum(axis=1)
    common = (above & masks).sum(axis=1) + shares * (ties & masks).sum(axis=1)
    return common / (2 * area - common)


def pointing(maps, masks):
    """Returns whether each map is hottest inside its mask (the pointing game), (N,); of ties the share: in [0, 1]."""
    hottest = maps == maps.max(axis=(1, 2), keepdims=True)
    return (hottest & masks).sum(axis=(1, 2)) / hottest.sum(axis=(1, 2))


def energy(maps, masks):
    """Returns which share of each map lies in its mask, (N,) in [0, 1]; of a map of zeros, the mask's of the image.

    Args:
        maps: (N, H, W) floats of at least 0.
        masks: (N, H, W) bool.
    """
    total, inside = maps.sum(axis=(1, 2), dtype=np.float64), (maps * masks).sum(axis=(1, 2), dtype=np.float64)
    return np.where(total > 0, inside / np.where(total > 0, total, 1), masks.mean(axis=(1, 2)))


def of_another(maps):
    """Returns the maps (N, H, W), each that of another image: the control that a map of its own has to beat."""
    return np.roll(maps, 1, axis=0)


def _focused(network, images, layers):
    """Returns {name: focus map} of {name: layer}."""
    model = graph.activations(network, list(dict.fromkeys(layers.values())))

    def of(batch):
        seen = model(scale(batch), training=False)
        return {name: focus_map(ops.relu(seen[layer]), batch.shape[1]) for name, layer in layers.items()}

    return in_batches(of, images)


def _of_positions(network, images, layers):
    """Returns {name: map} of {name: layer that gives (B, h, w, 1)}, up-sampled to the nearest."""
    model = graph.activations(network, list(layers.values()))

    def of(batch):
        seen = model(scale(batch), training=False)
        like = {"size": batch.shape[1:3], "interpolation": "nearest"}
        return {name: ops.image.resize(ops.cast(seen[x], "float32"), **like)[..., 0] for name, x in layers.items()}

    return in_batches(of, images)


def _map(energy, size):
    """Returns (B, h, w) up-sampled bicubically to (B, size, size), in [0, 1] image by image.

    Up-sampling is two products with a constant matrix, as LiteRT and ONNX have these and not every kind of resizing.
    """
    down, across = (_upsampling(length, size) for length in energy.shape[1:])
    return stretch(ops.matmul(ops.matmul(down, energy), across.T))


@functools.lru_cache
def _upsampling(length, size):
    """Returns the matrix, (size, length) NumPy, that up-samples a vector bicubically."""
    unit = Image.fromarray(np.eye(length, dtype=np.float32))
    return np.asarray(unit.resize((length, size), Image.Resampling.BICUBIC))

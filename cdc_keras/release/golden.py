"""The golden output of a network: what it gives on noise, by which it is known to compute the same elsewhere."""

import numpy as np

from cdc_keras.errors import UserError
from cdc_keras.networks.autoencoder import mean_encoder
from cdc_keras.zoo.record import PRESET, Golden

TOLERANCE = 1e-4  # absolute; float32 convolutions of two libraries
GOLDEN_VALUES = 8


def golden(network, seed=0, images=2):
    """Returns the `Golden` of a network: its output on `images` images of noise; of a noisy T its mean."""
    noise = np.random.default_rng(seed).random((images, *network.input_shape[1:])) * 2 - 1
    outputs = np.asarray(mean_encoder(network)(noise.astype("float32"), training=False), np.float64)
    if not np.isfinite(outputs).all():
        raise UserError(f"the outputs of {network.name} are not finite; it was trained to NaN")
    indices = np.unique(np.linspace(0, outputs.size - 1, GOLDEN_VALUES).astype(int))
    return Golden(
        seed=seed,
        images=images,
        shape=outputs.shape,
        mean=float(outputs.mean()),
        std=float(outputs.std()),
        indices=tuple(indices.tolist()),
        values=tuple(outputs.ravel()[indices].tolist()),
        tolerance=TOLERANCE,
    )


def differences(network, record):
    """Returns where the golden output of a network is not what its record says, as sentences."""
    expected = record.golden
    try:
        ours = golden(network, expected.seed, expected.images)
    except UserError as error:
        return [str(error)]
    if (ours.shape, ours.indices) != (expected.shape, expected.indices):
        return [f"gives {ours.shape} on the golden input, and {PRESET} says {expected.shape}"]
    pairs = {"mean": (ours.mean, expected.mean), "std": (ours.std, expected.std)}
    pairs |= {f"output {i}": x for i, *x in zip(ours.indices, ours.values, expected.values, strict=True)}
    return [
        f"gives {came:.6g} as the {name} of the golden output, and {PRESET} says {stated:.6g}"
        for name, (came, stated) in pairs.items()
        if not abs(came - stated) <= expected.tolerance
    ]

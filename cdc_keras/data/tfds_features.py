"""The features of a set of TensorFlow Datasets: its images, and what it says of them beside their category."""

import numpy as np

from cdc_keras.errors import UserError


def checked_image_size(builder, image_size):
    """Returns `image_size` or, if None, the stored one; raises UserError if this is no image classification set."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    image, label = (features[key] if key in features.keys() else None for key in ("image", "label"))
    if not isinstance(image, tfds.features.Image) or not isinstance(label, tfds.features.ClassLabel):
        raise UserError(f"{builder.name} is no image classification set: expected an image and a class label")
    if image.np_dtype != np.uint8 or image.shape[-1] not in (1, 3):
        raise UserError(f"{builder.name}: expected 1 or 3 channels of uint8, found {image.shape} of {image.np_dtype}")
    if image_size is None:
        image_size = image.shape[0]
        if image_size is None or image.shape[1] != image_size:
            raise UserError(f"the images of {builder.name} are not all squares of one size: give image_size")
    return image_size


def check_features(builder, names):
    """Raises `UserError` unless all names are features of single values of a `tfds.core.DatasetBuilder`."""
    known = [name for name, feature in builder.info.features.items() if feature.shape == () and name != "label"]
    for name in names:
        if name not in known:
            said = ", ".join(known) or "none"
            raise UserError(f"{builder.name} has no feature {name!r} that is a single value; it has {said}")


def texts(feature, values):
    """Returns the values of a feature, (N,), as an array of texts, categories by their names."""
    if hasattr(feature, "int2str"):
        return np.array([feature.int2str(int(value)) for value in values], object)
    return np.array([v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values], object)

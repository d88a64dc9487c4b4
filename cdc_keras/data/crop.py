"""From an image of any size to a square: the random crop of ImageNet training, the fitted centre, the squeezed whole.

All three are TensorFlow's, for `tf.data`: (H, W, 3) uint8 tensor -> (image_size, image_size, 3) uint8 tensor, resized
bilinearly and without aliasing.
"""

ASPECT_RATIOS = (3 / 4, 4 / 3)  # width to height
MOST_STRETCHED = 8


def random_resized_crop(image, image_size, crop_area, seed):
    """Returns a random part of an image, resized: a pure function of the image and the seed.

    The rectangle is `tf.image.stateless_sample_distorted_bounding_box`'s, as in TensorFlow's own ImageNet recipes: an
    aspect ratio uniform in `ASPECT_RATIOS`, then a height uniform among those that fit and give an area in
    [crop_area, 1]. Small areas are likelier than with PyTorch's RandomResizedCrop, which draws the area uniformly: of a
    375x500 image the mean is 37% instead of 43% for a crop_area of 0.08.

    Args:
        image: (H, W, 3) uint8 tensor.
        image_size: height and width of the result, pixels.
        crop_area: smallest share of the image's area that the part may have, in (0, 1].
        seed: (2,) int64 tensor.
    """
    import tensorflow as tf

    start, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(image),
        bounding_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed=seed,
        min_object_covered=0.0,
        aspect_ratio_range=ASPECT_RATIOS,
        area_range=(crop_area, 1.0),
    )
    return squeezed(tf.ensure_shape(tf.slice(image, start, size), (None, None, 3)), image_size)


def fitted(image, image_size):
    """Returns the image with its shorter side resized and the centre cropped; untouched, bit for bit, where it fits.

    Of an image more than `MOST_STRETCHED` times as long as wide the ends, which the crop leaves out, are cut off first:
    resized whole, a strip of 20,000 x 3 pixels takes gigabytes.
    """
    import tensorflow as tf

    if image.shape[:2] == (image_size, image_size):
        return image
    longest = MOST_STRETCHED * tf.reduce_min(tf.shape(image)[:2])
    height, width = (tf.minimum(side, longest) for side in tf.unstack(tf.shape(image)[:2]))
    image = tf.image.resize_with_crop_or_pad(image, height, width)
    sides = tf.shape(image)[:2]
    scale = image_size / tf.reduce_min(sides)
    # Rounding may not take the shorter side below image_size.
    resized = tf.maximum(tf.cast(tf.round(tf.cast(sides, scale.dtype) * scale), tf.int32), image_size)
    image = tf.image.resize(image, resized, method="bilinear", antialias=True)
    return _as_bytes(tf.image.resize_with_crop_or_pad(image, image_size, image_size))


def squeezed(image, image_size):
    """Returns the whole image resized, its aspect ratio not kept."""
    import tensorflow as tf

    return _as_bytes(tf.image.resize(image, (image_size, image_size), method="bilinear", antialias=True))


def _as_bytes(image):
    import tensorflow as tf

    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)

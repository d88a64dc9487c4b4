"""Encoded images to pixels inside a TensorFlow graph, as `data.folder.read_image` does it when a model is trained."""

import tensorflow as tf

from cdc_keras.data.folder import BACKDROP

PIXEL_LIMIT = 2**24  # of one image; 67 MB as it is decoded
AT_ONCE = 2  # images that are decoded at a time, for memory
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
PNG_HEADER = 24  # bytes: the signature, length and name of the first chunk, width and height


def decode_batch(encoded, size):
    """Returns the pixels of encoded images, (B, size, size, 3) uint8.

    The shorter side is brought to `size` and the centre cropped, without aliasing; transparent pixels get the grey they
    have in training. What an EXIF tag says of the orientation is not read.

    Args:
        encoded: (B,) strings, each the bytes of one JPEG or PNG of at most `PIXEL_LIMIT` pixels.
        size: height and width of every image that comes out, pixels.

    Raises:
        tf.errors.InvalidArgumentError: in the graph, if one of them is none, or too large; before it is decoded.
    """
    pixels = tf.TensorSpec((size, size, 3), tf.uint8)
    return tf.map_fn(
        lambda image: _fit(_decode(image), size), encoded, fn_output_signature=pixels, parallel_iterations=AT_ONCE
    )


def _decode(encoded):
    """Returns the whole image, (H, W, 3) uint8."""
    is_png = tf.strings.substr(encoded, 0, len(PNG)) == PNG
    is_jpeg = tf.strings.substr(encoded, 0, len(JPEG)) == JPEG
    known = tf.debugging.Assert(is_png | is_jpeg, ["these bytes are no JPEG and no PNG; send one of these"])
    with tf.control_dependencies([known]):
        height, width = tf.cond(is_png, lambda: _png_shape(encoded), lambda: _jpeg_shape(encoded))
    small = tf.debugging.Assert(
        (height > 0) & (width > 0) & (height <= PIXEL_LIMIT // tf.maximum(width, 1)),
        [f"an image has at most {PIXEL_LIMIT} pixels; this one has height and width", height, width],
    )
    with tf.control_dependencies([small]):
        return tf.cond(is_png, lambda: _png(encoded), lambda: _jpeg(encoded))


def _png_shape(encoded):
    whole = tf.debugging.Assert(tf.strings.length(encoded) >= PNG_HEADER, ["this PNG ends within its header"])
    with tf.control_dependencies([whole]):
        digits = tf.cast(tf.io.decode_raw(tf.strings.substr(encoded, PNG_HEADER - 8, 8), tf.uint8), tf.int64)
    width, height = tf.unstack(tf.reduce_sum(tf.reshape(digits, (2, 4)) * [2**24, 2**16, 2**8, 1], axis=1))
    return height, width


def _jpeg_shape(encoded):
    height, width, _ = tf.unstack(tf.cast(tf.image.extract_jpeg_shape(encoded), tf.int64))
    return height, width


def _png(encoded):
    """Returns an image, what is transparent on grey."""
    image = tf.io.decode_png(encoded, channels=4)
    colour, opacity = image[..., :3], tf.cast(image[..., 3:], tf.float32) / 255
    return tf.cond(
        tf.reduce_all(image[..., 3] == 255),
        lambda: colour,
        lambda: _uint8(opacity * tf.cast(colour, tf.float32) + (1 - opacity) * tf.constant(BACKDROP, tf.float32)),
    )


def _jpeg(encoded):
    return tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")


def _fit(image, size):
    """Returns the centre of an image, its shorter side brought to `size` by a filter that widens as it shrinks."""
    shape = tf.cast(tf.shape(image)[:2], tf.float32)
    shorter = tf.reduce_min(shape)
    scale = tf.fill((2,), size / shorter)
    fitted = tf.raw_ops.ScaleAndTranslate(
        images=image[None],
        size=(size, size),
        scale=scale,
        translation=-(shape - shorter) / 2 * scale,
        kernel_type="triangle",
        antialias=True,
    )
    return tf.ensure_shape(_uint8(fitted[0]), (size, size, 3))


def _uint8(values):
    return tf.cast(tf.clip_by_value(tf.round(values), 0, 255), tf.uint8)

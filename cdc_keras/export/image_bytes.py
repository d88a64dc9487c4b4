"""Encoded images to pixels inside a TensorFlow graph, as `data.folder.read_image` does it when a model is trained.

Bytes come from strangers, so what they may cost is known before they are decoded. Of one request at most `AT_ONCE`
images are decoded at a time, each of which takes up to 0.3 GB (a translucent PNG of `PIXEL_LIMIT`).
"""

import tensorflow as tf

from cdc_keras.data.folder import BACKDROP

PIXEL_LIMIT = 2**24
AT_ONCE = 2
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
PNG_HEADER = 24  # bytes: the signature, length and name of the first chunk, width and height
COMPRESSED, COMPRESSED_LIMIT = (b"zTXt", b"iTXt", b"iCCP"), 8  # chunks that libpng inflates, each to 8 MB at most


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
        lambda image: _decode(image, size), encoded, fn_output_signature=pixels, parallel_iterations=AT_ONCE
    )


def _decode(encoded, size):
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
        image = tf.cond(is_png, lambda: _png(encoded), lambda: _jpeg(encoded))
    return _fit(image, size)


def _png_shape(encoded):
    inflated = tf.add_n([tf.size(tf.strings.split(encoded, kind)) - 1 for kind in COMPRESSED])
    checks = [
        tf.debugging.Assert(tf.strings.length(encoded) >= PNG_HEADER, ["this PNG ends within its header"]),
        tf.debugging.Assert(inflated <= COMPRESSED_LIMIT, ["this PNG has more compressed text than any picture needs"]),
    ]
    with tf.control_dependencies(checks):
        digits = tf.cast(tf.io.decode_raw(tf.strings.substr(encoded, PNG_HEADER - 8, 8), tf.uint8), tf.int64)
    width, height = tf.unstack(tf.reduce_sum(tf.reshape(digits, (2, 4)) * [2**24, 2**16, 2**8, 1], axis=1))
    return height, width


def _jpeg_shape(encoded):
    height, width, _ = tf.unstack(tf.cast(tf.image.extract_jpeg_shape(encoded), tf.int64))
    return height, width


def _png(encoded):
    """Returns an image, what is transparent on grey."""
    image = tf.io.decode_png(encoded, channels=4)
    return tf.cond(tf.reduce_all(image[..., 3] == 255), lambda: image[..., :3], lambda: _on_grey(image))


def _on_grey(image):
    """Returns (H, W, 3) uint8 of (H, W, 4); in 16 bits, as floats would take twice the memory."""
    opacity = tf.cast(image[..., 3:], tf.uint16)
    colour = tf.cast(image[..., :3], tf.uint16) * opacity + tf.constant(BACKDROP, tf.uint16) * (255 - opacity)
    return tf.cast((colour + 127) // 255, tf.uint8)


def _jpeg(encoded):
    return tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")


def _fit(image, size):
    """Returns the centre of an image, its shorter side brought to `size` by a filter that widens as it shrinks."""
    sides = tf.shape(image)[:2]
    shorter = tf.reduce_min(sides)
    # The filter's rows come first, floats as long as the image is wide: so no more is kept than its columns reach.
    edge = tf.maximum((sides - shorter) // 2 - shorter // size - 1, 0)
    image = image[edge[0] : sides[0] - edge[0], edge[1] : sides[1] - edge[1]]
    kept, shorter = tf.cast(sides - 2 * edge, tf.float32), tf.cast(shorter, tf.float32)
    scale = tf.fill((2,), size / shorter)
    fitted = tf.raw_ops.ScaleAndTranslate(
        images=image[None],
        size=(size, size),
        scale=scale,
        translation=-(kept - shorter) / 2 * scale,
        kernel_type="triangle",
        antialias=True,
    )
    pixels = tf.cast(tf.clip_by_value(tf.round(fitted[0]), 0, 255), tf.uint8)
    return tf.ensure_shape(pixels, (size, size, 3))

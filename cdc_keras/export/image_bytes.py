"""Encoded images to pixels inside a TensorFlow graph, by the rules of `data.image_file`, which reads them in training.

Bytes come from strangers, so what they may cost is known before they are decoded. Of one request at most `AT_ONCE`
images are decoded at a time, each of which takes up to 0.3 GB (a translucent PNG of `PIXEL_LIMIT`).
"""

import tensorflow as tf

from cdc_keras.data import image_file as rules

PIXEL_LIMIT, BYTE_LIMIT = 2**24, 2**25
AT_ONCE = 2
# Orientations of EXIF by what brings them upright: first rows and columns change places, then each is reversed.
TRANSPOSED, ROWS_REVERSED, COLUMNS_REVERSED = (5, 6, 7, 8), (3, 4, 7, 8), (2, 3, 6, 7)
CRC = []  # of one byte, as in zlib
for value in range(256):
    for _ in range(8):
        value = value >> 1 ^ (0xEDB88320 if value & 1 else 0)
    CRC.append(value)


def decode_batch(encoded, size):
    """Returns the pixels of encoded images, (B, size, size, 3) uint8.

    The shorter side is brought to `size` and the centre cropped, without aliasing; transparent pixels get the grey they
    have in training, and images are turned as EXIF says.

    Args:
        encoded: (B,) strings, each the bytes of one JPEG or PNG, at most `BYTE_LIMIT`, of at most `PIXEL_LIMIT` pixels.
        size: height and width of every image that comes out, pixels.

    Raises:
        tf.errors.InvalidArgumentError: in the graph, if one of them is none, or too large; before it is decoded.
    """
    pixels = tf.TensorSpec((size, size, 3), tf.uint8)
    return tf.map_fn(
        lambda image: _decode(image, size), encoded, fn_output_signature=pixels, parallel_iterations=AT_ONCE
    )


def _decode(encoded, size):
    is_png, is_jpeg = _starts(encoded, rules.PNG), _starts(encoded, rules.JPEG)
    encoded = _checked(
        encoded,
        (is_png | is_jpeg, ["these bytes are no JPEG and no PNG; send one of these"]),
        (tf.strings.length(encoded) <= BYTE_LIMIT, [f"an image has at most {BYTE_LIMIT} bytes"]),
    )
    image, exif = tf.cond(is_png, lambda: _png(encoded, size), lambda: _jpeg(encoded, size))
    return _turned(image, _orientation(exif))


def _checked(value, *conditions):
    """Returns `value` once all conditions, (bool, what is said where it is False) each, are seen to hold."""
    with tf.control_dependencies([tf.debugging.Assert(*condition) for condition in conditions]):
        return tf.identity(value)


def _starts(text, start, at=0):
    return tf.strings.substr(text, at, len(start)) == start


def _number(text, size):
    """Returns the whole number in the first bytes of a string, the highest of them first."""
    digits = _digits(tf.strings.substr(text, 0, size))
    return tf.reduce_sum(digits * [256**i for i in reversed(range(size))])


def _digits(text):
    return tf.cast(tf.io.decode_raw(text, tf.uint8), tf.int64)


def _part(text, start, size):
    """Returns the bytes from `start`, at most `size` of them."""
    return tf.strings.substr(text, tf.minimum(start, _length(text)), size)


def _length(text):
    return tf.cast(tf.strings.length(text), tf.int64)


def _checked_size(height, width):
    said = [f"an image has at most {PIXEL_LIMIT} pixels; this one has height and width", height, width]
    return (height > 0) & (width > 0) & (height <= PIXEL_LIMIT // tf.maximum(width, 1)), said


def _png(encoded, size):
    """Returns (pixels brought to `size`, EXIF block) of a PNG, what is transparent on grey."""
    zero, none = tf.constant(0, tf.int64), tf.constant(b"")

    def more(going, count, at, *rest):
        return going & (count < rules.PART_LIMIT) & (at + 12 <= _length(encoded))

    def step(going, count, at, header, palette, key, exif, first, last, pieces):
        size, kind = _number(_part(encoded, at, 4), 4), _part(encoded, at + 4, 4)
        end = at + 12 + size
        going = (end <= _length(encoded)) & (kind != rules.IEND[4:8])
        chunk = _part(encoded, at, 12 + tf.minimum(size, rules.EXIF_LIMIT))

        def taken(name, before, early=True):
            return tf.where(going & (kind == name) & (before == b"") & (early | (name == b"eXIf")), chunk, before)

        early = pieces == 0
        piece = going & (kind == b"IDAT") & (early | (at == last))
        header, palette = taken(b"IHDR", header, early), taken(b"PLTE", palette, early)
        key, exif = taken(b"tRNS", key, early), taken(b"eXIf", exif)
        first, last = tf.where(piece & early, at, first), tf.where(piece, end, last)
        return going, count + 1, end, header, palette, key, exif, first, last, pieces + tf.cast(piece, tf.int64)

    start = tf.constant(True), zero, zero + len(rules.PNG), none, none, none, none, zero, zero, zero
    *_, header, palette, key, exif, first, last, pieces = tf.while_loop(more, step, start, parallel_iterations=1)
    whole = (tf.strings.length(header) == 25) & _starts(encoded, b"\0\0\0\rIHDR", len(rules.PNG)) & (pieces > 0)
    header = _checked(header, (whole, ["this PNG has no picture, or ends early"]))
    width, height = (_number(tf.strings.substr(header, at, 4), 4) for at in (8, 12))
    depth, colour = (_number(tf.strings.substr(header, at, 1), 1) for at in (16, 17))
    colours, samples = (_length(text) - 12 for text in (palette, key))
    is_palette = colour == 3
    has_key = tf.where(
        is_palette,
        (samples > 0) & (samples <= colours // 3),
        ((colour == 0) & (samples == 2)) | ((colour == 2) & (samples == 6)),
    )
    key = tf.where(has_key, key, b"")
    row = width * depth * tf.gather(tf.constant(rules.CHANNELS, tf.int64), tf.minimum(colour, 7)) // 8 + 4
    broken = is_palette & ((colours <= 0) | (colours > 768) | (colours % 3 != 0))
    compressed = last - first - 12 * pieces
    header = _checked(
        header,
        (~broken, ["this PNG has no palette, or a broken one"]),
        (_has_checksum(key), ["this PNG has a wrong checksum"]),
        _checked_size(height, width),
        (compressed <= rules.stream_limit(height, row), ["this PNG has more data than its pixels need"]),
    )
    colour_chunks = tf.where(is_palette, palette, b""), key
    parts = [rules.PNG, header, *colour_chunks, tf.strings.substr(encoded, first, last - first), rules.IEND]
    data = tf.strings.join(parts)
    image = tf.cond(
        has_key | (colour >= 4),
        lambda: _on_grey(tf.io.decode_png(data, channels=4), size),
        # Not with four channels: what TensorFlow fills in for opaque is transparent where a sample has few bits.
        lambda: _rounded(_fit(tf.io.decode_png(data, channels=3), size)),
    )
    return image, _part(exif, zero + 8, tf.maximum(_length(exif) - 12, 0))


def _has_checksum(chunk):
    """Returns whether a chunk of a PNG, at most a few hundred bytes, is empty or ends with its checksum."""
    content = _digits(_part(chunk, tf.constant(4, tf.int64), tf.maximum(_length(chunk) - 8, 0)))
    state = tf.foldl(
        lambda crc, byte: tf.bitwise.bitwise_xor(crc // 256, tf.gather(CRC, tf.bitwise.bitwise_xor(crc % 256, byte))),
        content,
        tf.constant(2**32 - 1, tf.int64),
    )
    end = tf.strings.substr(tf.strings.join([b"\0\0\0\0", chunk]), -4, 4)
    return (chunk == b"") | (_number(end, 4) == 2**32 - 1 - state)


def _on_grey(image, size):
    """Returns pixels (size, size, 3) of (H, W, 4).

    What an image of `PIXEL_LIMIT` costs here is memory that is written: so colours are only multiplied by their opacity
    before they are fewer, and in 16 bits.
    """
    opacity = image[..., 3:]
    colour = _fit(tf.cast(image[..., :3], tf.uint16) * tf.cast(opacity, tf.uint16), size) / 255
    return _rounded(colour + tf.constant(rules.BACKDROP, tf.float32) * (1 - _fit(opacity, size) / 255))


def _jpeg(encoded, size):
    """Returns (pixels brought to `size`, EXIF block) of a JPEG."""
    zero, none = tf.constant(0, tf.int64), tf.constant(b"")

    def one_of(marker, choices):
        return tf.reduce_any(marker == tf.constant(choices, tf.int64))

    def more(count, at, head, *rest):
        open_ = (count < rules.PART_LIMIT) & (at + 4 <= _length(encoded)) & (_length(head) <= rules.TABLE_LIMIT)
        return open_ & (_part(encoded, at, 2) != rules.SCAN)

    def step(count, at, head, frame, colour, adobe, exif, other):
        first, marker, high, low = tf.unstack(_digits(_part(encoded, at, 4)), 4)
        filling, bare = (first != 255) | one_of(marker, (0, 255)), one_of(marker, rules.BARE)
        size = tf.where(filling, zero + 1, tf.where(bare, zero + 2, 2 + tf.maximum(high * 256 + low, 2)))
        segment, real = _part(encoded, at, size), ~filling & ~bare
        is_frame = real & one_of(marker, rules.FRAMES)
        kept = is_frame | (real & one_of(marker, rules.TABLES))

        def says(kind):
            same = _starts(segment, kind[:2]) & (_part(segment, zero + 4, 5) == kind[4:9])
            return real & same & (_length(segment) >= len(kind))

        last = _part(segment, zero + len(rules.ADOBE) - 1, 1)
        is_exif = real & _starts(segment, rules.EXIF[0]) & (_part(segment, zero + 4, 6) == rules.EXIF[1])
        return (
            count + 1,
            at + size,
            tf.strings.join([head, tf.where(kept, segment, b"")]),
            tf.where(is_frame, segment, frame),
            tf.where(says(rules.JFIF), rules.JFIF, colour),
            tf.where(says(rules.ADOBE), tf.strings.join([rules.ADOBE[:-1], last]), adobe),
            tf.where(is_exif & (exif == b""), _part(segment, zero + 10, rules.EXIF_LIMIT), exif),
            other | (real & one_of(marker, rules.OTHER_FRAMES)),
        )

    start = zero, zero + 2, none, none, none, none, none, tf.constant(False)
    _, at, head, frame, jfif, adobe, exif, other = tf.while_loop(more, step, start, parallel_iterations=1)
    tail = tf.strings.split(_part(encoded, at, BYTE_LIMIT), rules.END, maxsplit=1)
    whole = (tf.size(tail) == 2) & (_part(encoded, at, 2) == rules.SCAN) & (_length(frame) >= 10)
    frame = _checked(
        frame,
        (~other, ["this JPEG is neither baseline nor progressive"]),
        (whole & (_length(head) <= rules.TABLE_LIMIT), ["this JPEG has no picture, or ends early"]),
    )
    height, width = (_number(tf.strings.substr(frame, at, 2), 2) for at in (5, 7))
    bits, channels = (_number(tf.strings.substr(frame, at, 1), 1) for at in (4, 9))
    scans = tf.size(tf.strings.split(tail[0], rules.SCAN, maxsplit=rules.SCAN_LIMIT + 1), out_type=tf.int64) - 1
    work = scans * (height + rules.BLOCK) * (width + rules.BLOCK)
    usual = (bits == 8) & one_of(channels, (1, 3, 4))
    head = _checked(
        head,
        (usual, ["this JPEG has other than 8 bits a channel, or other than 1, 3 or 4 channels"]),
        _checked_size(height, width),
        (
            (scans <= rules.SCAN_LIMIT) & (work <= rules.WORK_LIMIT),
            ["this JPEG goes over its pixels more often than any picture needs"],
        ),
    )
    adobe = tf.where((channels == 4) & (adobe == b""), rules.ADOBE, adobe)
    data = tf.strings.join([rules.JPEG[:2], jfif, adobe, head, tail[0], rules.END])
    return _rounded(_fit(tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE"), size)), exif


def _orientation(exif):
    """Returns what an EXIF block says of the orientation; 1 where it says nothing."""
    little, big = _starts(exif, b"II*\0"), _starts(exif, b"MM\0*")
    digits = tf.concat([_digits(exif), tf.zeros((8,), tf.int64)], axis=0)

    def numbers(digits, size):
        powers = [256**i for i in range(size)]
        return tf.reduce_sum(
            digits * tf.where(little, tf.constant(powers, tf.int64), tf.constant(powers[::-1], tf.int64)), axis=-1
        )

    start = tf.minimum(numbers(digits[4:8], 4), _length(exif))
    count = tf.minimum(numbers(digits[start : start + 2], 2), tf.maximum(_length(exif) - start - 2, 0) // 12)
    entries = tf.reshape(digits[start + 2 : start + 2 + 12 * count], (-1, 12))
    tags, kinds, values = (numbers(entries[:, at : at + 2], 2) for at in (0, 2, 8))
    found = tf.boolean_mask(values, (tags == rules.ORIENTATION) & (kinds == rules.SHORT))
    return tf.where(little | big, tf.concat([found, [1]], axis=0)[0], 1)


def _turned(image, orientation):
    """Returns a square image upright."""

    def among(choices):
        return tf.reduce_any(orientation == tf.constant(choices, tf.int64))

    image = tf.where(among(TRANSPOSED), tf.transpose(image, (1, 0, 2)), image)
    image = tf.where(among(ROWS_REVERSED), tf.reverse(image, [0]), image)
    return tf.where(among(COLUMNS_REVERSED), tf.reverse(image, [1]), image)


def _fit(image, size):
    """Returns the centre of an image (H, W, C), (size, size, C) float, by a filter that widens as it shrinks."""
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
    return tf.ensure_shape(fitted[0], (size, size, image.shape[-1]))


def _rounded(image):
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)

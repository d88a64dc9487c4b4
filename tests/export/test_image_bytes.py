"""Training and the exported model read the same image of a file, and refuse the same files."""

import collections
import io
import math
import resource
import struct
import time
import zlib

import image_files
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from cdc_keras.data import image_file
from cdc_keras.data.image_file import read_image
from cdc_keras.export import image_bytes
from cdc_keras.export.image_bytes import decode_batch

SIZE = 32
SERVE = tf.function(lambda x: decode_batch(x, SIZE), input_signature=[tf.TensorSpec((None,), tf.string)])


@pytest.fixture
def trained(tmp_path):
    """What training reads of the bytes of a file, or why it refuses them."""

    def read(data):
        (tmp_path / "file").write_bytes(data)
        try:
            return read_image(tmp_path / "file", SIZE).astype(int)
        except Exception as error:
            return str(error)

    return read


def served(data):
    """What an exported model reads of the bytes of a file, or why it refuses them."""
    try:
        return SERVE(tf.constant([data]))[0].numpy()
    except tf.errors.InvalidArgumentError as error:
        return error.message


def differences(trained, files):
    """Returns {name: greatest difference in grey levels, or what either says} of the files that are not read alike."""
    unlike = {}
    for name, data in files:
        pair = trained(data), served(data)
        refused = [isinstance(x, str) for x in pair]
        if any(refused):
            unlike[name] = pair
        elif (greatest := abs(pair[0] - pair[1]).max()) > 1:
            unlike[name] = greatest
    return unlike


@pytest.mark.parametrize("height, width", image_files.SIZES)
def test_every_kind_of_file_is_read_alike(trained, height, width):
    files = [(name, data) for _, name, data in image_files.kinds(height, width)]
    assert len(files) == 60 + 22
    assert differences(trained, files) == {}


@pytest.mark.long
def test_every_kind_of_large_file_is_read_alike(trained):
    files = [(name, data) for _, name, data in image_files.kinds(*image_files.LARGE)]
    assert differences(trained, files) == {}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_every_orientation_is_turned(trained, kind, order):
    file = io.BytesIO()
    Image.fromarray((np.indices((40, 64)) * [[[5]], [[1]]]).sum(axis=0).astype(np.uint8)).save(file, kind)
    upright = served(file.getvalue())
    files = {o: image_files.with_exif(file.getvalue(), image_files.exif(o, order)) for o in range(10)}
    assert differences(trained, files.items()) == {}
    assert {o for o, data in files.items() if not np.array_equal(served(data), upright)} == set(range(2, 9))


def test_a_broken_or_odd_exif_block_turns_nothing_or_alike(trained):
    file = io.BytesIO()
    Image.fromarray((np.indices((40, 64)) * [[[5]], [[1]]]).sum(axis=0).astype(np.uint8)).save(file, "PNG")
    block = image_files.exif(6)
    blocks = (
        [block[:n] for n in range(len(block))]
        + [
            block.replace(b"\1\x12\0\3", b"\1\x12\0\4"),  # the value of another type
            block[:4] + b"\xff\xff\xff\xff" + block[8:],
            block[:8] + b"\xff\xff" + block[10:],
            b"garbage!" * 9,
        ]
    )
    assert differences(trained, ((i, image_files.with_exif(file.getvalue(), b)) for i, b in enumerate(blocks))) == {}


def spoiled(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


PALETTE = image_files.samples(np.random.default_rng(0), 20, 20, 1, 2)
COLOURS, OPACITY = image_files.chunk(b"PLTE", bytes(range(9))), image_files.chunk(b"tRNS", b"\0\x80")
WHOLE = image_files.png(PALETTE, 2, 3, COLOURS, OPACITY)
PHOTO = dict(image_files.jpegs(40, 40))["YCbCr, 4:4:4"]
TEXTS = b"".join(image_files.chunk(kind, b"key\0\0\0\0\0value") for kind in (b"iTXt", b"zTXt", b"iCCP", b"tEXt") * 9)
ODD = {
    "index beyond the palette": WHOLE,
    "texts of all kinds, some broken": image_files.png(PALETTE, 2, 3, TEXTS, COLOURS),
    "text with a wrong checksum": image_files.png(PALETTE, 2, 3, spoiled(TEXTS, 40), COLOURS),
    "no end": WHOLE[:-12],
    "bytes after the end": WHOLE + b"more",
    "a palette in an RGB image": image_files.png(PALETTE.repeat(3, axis=2), 8, 2, COLOURS),
    "a transparent colour of another size": image_files.png(PALETTE, 8, 0, image_files.chunk(b"tRNS", b"abc")),
    "more opacities than colours": image_files.png(PALETTE, 8, 3, COLOURS, image_files.chunk(b"tRNS", b"abcd")),
    "opacity before the palette": image_files.png(PALETTE, 8, 3, OPACITY, COLOURS),
    "rubbish before a segment": PHOTO[:20] + b"rubbish" + PHOTO[20:],
    "scan markers in a comment": PHOTO[:2] + b"\xff\xfe\0\xc8" + b"\xff\xda" * 99 + PHOTO[2:],
    "a picture after the picture": PHOTO + PHOTO,
    "two EXIF blocks": image_files.with_exif(image_files.with_exif(PHOTO, image_files.exif(6)), b"garbage!"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_files_are_read_alike(trained, name):
    assert differences(trained, [(name, ODD[name])]) == {}


def scans(count):
    """A progressive JPEG whose last scan comes `count` times."""
    photo = dict(image_files.jpegs(40, 40))["YCbCr, 4:4:4, progressive"]
    last = photo[photo.rindex(b"\xff\xda") : -2]
    return photo[:-2] + last * count + photo[-2:]


def tail(count):
    """A PNG whose compressed stream goes on after its last pixel, `count` random bytes long."""
    rows = zlib.compress(bytes(20) + np.random.default_rng(0).bytes(count), 1)
    header = image_files.chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return image_files.PNG + header + image_files.chunk(b"IDAT", rows) + image_files.chunk(b"IEND", b"")


def shorter(count, interlaced=False):
    """A PNG of 33 x 20 pixels of 16 bits whose compressed stream lacks its last bytes, and is well formed."""
    whole = image_files.png(image_files.samples(np.random.default_rng(0), 20, 33, 1, 16), 16, 0, interlaced=interlaced)
    rows = zlib.decompress(whole[41:-16])[:-count]
    return whole[:33] + image_files.chunk(b"IDAT", zlib.compress(rows)) + whole[-12:]


def frame(marker, photo=PHOTO):
    return photo.replace(b"\xff\xc0", b"\xff" + bytes([marker]), 1)


REFUSED = {
    "empty": (b"", "no JPEG and no PNG", "no readable JPEG"),
    "signature": (WHOLE[:8], *["has no picture"] * 2),
    "half a PNG": (WHOLE[:-40], "has no picture", "has no picture"),
    "half a JPEG": (PHOTO[:700], *["ends early"] * 2),
    "pixels' checksum": (spoiled(WHOLE, -20), "Invalid PNG data", "wrong checksum"),
    "header's checksum": (spoiled(WHOLE, 30), "Invalid PNG", "wrong checksum"),
    "palette's checksum": (spoiled(WHOLE, 33 + 20), "Invalid PNG", "wrong checksum"),
    "opacity's checksum": (spoiled(WHOLE, 33 + 21 + 13), "wrong checksum", "wrong checksum"),
    "no palette": (image_files.png(PALETTE, 2, 3), *["no palette"] * 2),
    "a row too few": (shorter(33 * 2), "Invalid PNG data", "ends early"),
    "a byte too few": (shorter(1), "Invalid PNG data", "ends early"),
    "a byte too few, interlaced": (shorter(1, interlaced=True), "Invalid PNG data", "ends early"),
    "more compressed data": (tail(9999), *["more data than its pixels need"] * 2),
    "many chunks": (image_files.png(PALETTE, 8, 0, *[image_files.chunk(b"tEXt", b"")] * 9000), *["no picture"] * 2),
    "many segments": (PHOTO[:2] + b"\xff\xfe\0\2" * 9000 + PHOTO[2:], *["no picture"] * 2),
    "many tables": (
        PHOTO[:2] + b"\xff\xdb\0\x43" + (bytes(65) + b"\xff\xdb\0\x43") * 400 + PHOTO[2:],
        *["no picture"] * 2,
    ),
    "many scans": (scans(100), *["goes over its pixels more often"] * 2),
    "lossless": (frame(0xC3), *["neither baseline nor progressive"] * 2),
    "arithmetic": (frame(0xC9), *["neither baseline nor progressive"] * 2),
    "12 bits": (PHOTO.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"), *["other than 8 bits"] * 2),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_one_refuses_the_other_refuses_too(trained, name):
    data, by_serving, by_training = REFUSED[name]
    assert by_serving in served(data) and by_training in trained(data)


def test_a_progressive_jpeg_of_the_largest_size_served_is_within_the_limits():
    largest = (math.isqrt(image_bytes.PIXEL_LIMIT) + image_file.BLOCK) ** 2
    scans = {name: data.count(image_file.SCAN) for name, data in image_files.jpegs(40, 40)}
    assert max(scans.values()) == scans["CMYK with Adobe marker, progressive"] == 18
    assert 18 <= image_file.SCAN_LIMIT and 18 * largest <= image_file.WORK_LIMIT


def mutated(rng, files):
    """Returns one of the files with bits turned, an end cut off, a part twice, or a part of another file inside."""
    data = bytearray(files[rng.integers(len(files))])
    for _ in range(rng.integers(1, 4)):
        start, end = sorted(rng.integers(0, len(data) + 1, 2))
        match rng.integers(5):
            case 0:
                for at in rng.integers(0, len(data), rng.integers(1, 9)) if data else ():
                    data[at] ^= 1 << rng.integers(8)
            case 1:
                del data[start if rng.integers(2) else max(len(data) - 20, 0) :]
            case 2:
                data[end:end] = data[start:end]
            case 3:
                other = files[rng.integers(len(files))]
                data[start:end] = other[start:end]
            case 4:
                data = bytearray(with_checksums(bytes(data)))
    return bytes(data)


def with_checksums(data):
    """Returns a PNG with right checksums, so that what else is wrong with it gets further; others as they are."""
    at = len(image_files.PNG)
    while data.startswith(image_files.PNG) and at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        if end <= len(data):
            data = data[: end - 4] + struct.pack(">I", zlib.crc32(data[at + 4 : end - 4])) + data[end:]
        at = end
    return data


@pytest.mark.long
def test_ten_thousand_mutated_bodies_are_answered_or_refused_in_time_and_memory(trained):
    """The two sides differ where damage inside compressed data is seen by one decoder alone, so few bodies do."""
    rng, files = np.random.default_rng(0), [data for _, _, data in image_files.kinds(31, 47)]
    files += [image_files.with_exif(data, image_files.exif(6)) for data in files[::7]] + list(ODD.values())
    for data in files:
        served(data)
    before, slowest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    counts = collections.Counter()
    for _ in range(10_000):
        data = mutated(rng, files)
        start = time.perf_counter()
        by_serving = served(data)  # any error but a refusal ends the test
        slowest = max(slowest, time.perf_counter() - start)
        by_training = trained(data)
        kind = tuple("refused" if isinstance(x, str) else "read" for x in (by_serving, by_training))
        if kind == ("read", "read"):
            kind = "alike" if abs(by_serving - by_training).max() <= 1 else "unlike"
        counts[kind] += 1
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    print(f"{dict(counts)}, slowest {slowest:.3f} s, grown by {grown} MB")
    assert slowest < 1 and grown < 200
    assert counts["alike"] > 1000 and counts["refused", "refused"] > 1000
    assert counts.total() - counts["alike"] - counts["refused", "refused"] < 100

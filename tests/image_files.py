"""Image files of every kind, by name: PNGs written by hand, as Pillow writes few of them, and JPEGs of all colours."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"
# Colour type of a PNG: (name, samples of a pixel, bits of a sample, kinds of transparency).
COLOUR_TYPES = {
    0: ("grey", 1, (1, 2, 4, 8, 16), ("opaque", "tRNS")),
    2: ("RGB", 3, (8, 16), ("opaque", "tRNS")),
    3: ("palette", 1, (1, 2, 4, 8), ("opaque", "tRNS")),
    4: ("grey with alpha", 2, (8, 16), ("alpha", "opaque")),
    6: ("RGB with alpha", 4, (8, 16), ("alpha", "opaque")),
}
# Of interlaced PNGs: the first column and row of each pass, and the steps from there.
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
SIZES = ((1, 1), (1, 9), (33, 2), (31, 47), (200, 133))
LARGE = (4000, 4000)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(samples, depth, colour, *chunks, interlaced=False, filters=1):
    """Returns a PNG of (H, W, C) integer samples, with more chunks before its pixels."""
    height, width = samples.shape[:2]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    passes = [samples[y::dy, x::dx] for x, y, dx, dy in PASSES] if interlaced else [samples]
    rows = b"".join(_rows(part, depth, filters) for part in passes if part.size)
    return PNG + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


def _rows(samples, depth, filters):
    """Returns the rows of one pass, the row before taken off every other one (filter 2 of PNG)."""
    flat = samples.reshape(len(samples), -1)
    if depth == 16:
        rows = flat.astype(">u2").view(np.uint8)
    else:
        bits = np.unpackbits(flat.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
        rows = np.packbits(bits.reshape(len(flat), -1), axis=-1)
    kinds = np.zeros((len(rows), 1), np.uint8)
    if filters:
        above = np.vstack([np.zeros_like(rows[:1]), rows[:-1]])
        kinds[1::2] = 2
        rows = np.where(kinds == 2, rows - above, rows)
    return np.hstack([kinds, rows]).tobytes()


def samples(rng, height, width, channels, depth):
    """Returns (H, W, C) samples without much detail, as photographs are, over all values."""
    coarse = rng.integers(0, 2**depth, (height // 8 + 1, width // 8 + 1, channels))
    return coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]


def pngs(height, width, seed=0):
    """Yields (name, bytes) of a PNG of every kind."""
    rng = np.random.default_rng([seed, height, width])
    for colour, (name, channels, depths, transparencies) in COLOUR_TYPES.items():
        for depth in depths:
            for transparency in transparencies:
                for interlaced in (False, True):
                    pixels, chunks = samples(rng, height, width, channels, depth), []
                    if colour == 3:
                        count = 2**depth
                        chunks.append(chunk(b"PLTE", rng.bytes(3 * count)))
                        if transparency == "tRNS":
                            chunks.append(chunk(b"tRNS", rng.bytes(rng.integers(1, count + 1))))
                    elif transparency == "tRNS":
                        key = pixels[height // 2, width // 2].copy()
                        if depth == 16 and width > 2:  # as like it as can be, but not transparent
                            pixels[0, 0] = key ^ 1
                        chunks.append(chunk(b"tRNS", key.astype(">u2").tobytes()))
                    elif transparency == "opaque" and colour > 3:
                        pixels[..., -1] = 2**depth - 1
                    file = png(pixels, depth, colour, *chunks, interlaced=interlaced)
                    label = f"{name}, {depth} bits, {transparency}" + ", interlaced" * interlaced
                    yield label, file


def without(jpeg, marker):
    """Returns a JPEG without its first segment of a kind."""
    at = jpeg.index(marker)
    return jpeg[:at] + jpeg[at + 2 + int.from_bytes(jpeg[at + 2 : at + 4]) :]


def jpegs(height, width, seed=0):
    """Yields (name, bytes) of a JPEG of every kind."""
    rng = np.random.default_rng([seed, height, width])
    rgb = Image.fromarray(samples(rng, height, width, 3, 8).astype(np.uint8))
    cmyk = Image.fromarray(samples(rng, height, width, 4, 8).astype(np.uint8), "CMYK")
    for progressive in (False, True):

        def saved(image, **options):
            file = io.BytesIO()
            image.save(file, "JPEG", quality=95, progressive=progressive, **options)  # noqa: B023
            return file.getvalue()

        kinds = {
            "grey": saved(rgb.convert("L")),
            **{f"YCbCr, 4:{x}": saved(rgb, subsampling=f"4:{x}") for x in ("4:4", "2:2", "2:0")},
            "YCbCr without marker": without(saved(rgb), b"\xff\xe0"),
            "RGB with Adobe marker": adobe(saved(rgb, keep_rgb=True), 0),
            "RGB by its component names": without(adobe(saved(rgb, keep_rgb=True), 0), b"\xff\xee"),
            "CMYK with Adobe marker": saved(cmyk),
            "CMYK without marker": without(saved(cmyk), b"\xff\xee"),
            "YCCK": adobe(saved(cmyk), 2),
            "restart markers": saved(rgb, restart_marker_blocks=1),
        }
        for name, file in kinds.items():
            yield name + ", progressive" * progressive, file


def adobe(jpeg, transform):
    """Returns a JPEG with an Adobe marker of this transform in the place of its own, or of its JFIF marker."""
    for marker in (b"\xff\xe0", b"\xff\xee"):
        if marker in jpeg[:40]:
            jpeg = without(jpeg, marker)
    return jpeg[:2] + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([transform]) + jpeg[2:]


def exif(orientation, order=">"):
    """Returns an EXIF block that says an orientation, after another entry."""
    entry = struct.pack(f"{order}HHI", 0x0112, 3, 1) + struct.pack(f"{order}HH", orientation, 0)
    other = struct.pack(f"{order}HHII", 0x0100, 4, 1, 5)
    return (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(f"{order}IH", 8, 2) + other + entry + bytes(4)


def with_exif(file, block):
    """Returns a JPEG or PNG with an EXIF block."""
    if file.startswith(PNG):
        return file[:33] + chunk(b"eXIf", block) + file[33:]
    return file[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 8) + b"Exif\0\0" + block + file[2:]


def kinds(height, width):
    """Yields (format, name, bytes) of a file of every kind."""
    yield from (("PNG", *item) for item in pngs(height, width))
    yield from (("JPEG", *item) for item in jpegs(height, width))

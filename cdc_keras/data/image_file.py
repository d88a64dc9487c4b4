"""One image file as training reads it: JPEG, PNG, WebP or BMP, told by its first bytes and decoded by Pillow.

Of a JPEG or PNG only the parts that make its pixels reach a decoder, and their number is limited: what else a file
holds can cost more than its pixels, and decoders disagree on it. `export.image_bytes` follows the same rules in a
TensorFlow graph, so that an exported model sees and refuses what training does.
"""

import io
import os
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# What Pillow may open, whatever a name says: it knows others, of which some start programs (EPS) or come out black.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
# What shows through a transparent pixel: no category has this grey for a background, as many would have white.
BACKDROP = (128, 128, 128)

CHANNELS = (1, 0, 3, 1, 2, 0, 4, 0)  # of a PNG by its colour type: grey, RGB, palette, grey and alpha, RGBA
# The first column and row of an image, or of the passes of an interlaced one, and the steps from there.
WHOLE = ((0, 0, 1, 1),)
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
BYTE_LIMIT = 2**27
PART_LIMIT = 2**13  # chunks of a PNG; segments of a JPEG before its first scan
TABLE_LIMIT = 2**14  # bytes of a JPEG's tables, of which it needs 2 kB
SCAN_LIMIT = 64  # of a JPEG; programs write 10 or 12 at most
WORK_LIMIT = 5 * 2**26  # pixels that all scans of a JPEG go over: 18 scans of CMYK, progressive, 16.8 megapixels
EXIF_LIMIT = 2**16
BLOCK = 32  # pixels of the largest block of a JPEG, its height and width
FRAMES = (0xC0, 0xC1, 0xC2)  # of JPEGs: baseline, extended and progressive
TABLES = (0xC4, 0xDB, 0xDD)  # Huffman codes, quantisation, restart interval
OTHER_FRAMES = (0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xD9)  # lossless, arithmetic, none
BARE = (0x01, *range(0xD0, 0xD9))  # markers without a length
SCAN, END = b"\xff\xda", b"\xff\xd9"
# Segments that say how colours are meant: YCbCr; of four channels CMYK, inverted as all programs write it.
JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
ADOBE = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0"
EXIF = b"\xff\xe1", b"Exif\0\0"
IEND = b"\0\0\0\0IEND\xaeB`\x82"

ORIENTATION, SHORT = 0x0112, 3  # tag of EXIF, and the type of its value
# Its values that are not upright, and what turns them.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(path, image_size=None):
    """(image_size, image_size, 3) uint8 of one file; raises whatever Pillow raises where it cannot be decoded.

    Args:
        path: a file in one of `FORMATS`.
        image_size: the shorter side is brought to this, then the centre cropped, pixels; None is the whole image.

    Raises:
        ValueError: the file is none of these, is damaged, or costs more than an image does.
    """
    with open(path, "rb") as file:
        image = decode(file)
    if image_size is not None:
        # PIL's bilinear filter widens as it shrinks, so it does not alias.
        image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(image)


def decode(file, draft=None):
    """Returns the `PIL.Image` of an open file: RGB, upright as EXIF says, and on the backdrop.

    Args:
        file: opened for binary reading.
        draft: a JPEG may come out smaller, to be decoded faster, but not below this many pixels a side.

    Raises:
        ValueError: as for `read_image`.
    """
    start = file.read(len(PNG))
    file.seek(0)
    if start == PNG:
        image, exif = _png(_bytes(file))
    elif start.startswith(JPEG):
        image, exif = _jpeg(_bytes(file), draft)
    else:
        image = _open(file, ("WEBP", "BMP"))
        image.load()
        exif = image.info.get("exif", b"").removeprefix(b"Exif\0\0")
    turn = TURNS.get(orientation(exif[:EXIF_LIMIT]))
    if image.has_transparency_data:
        backdrop = Image.new("RGBA", image.size, BACKDROP)
        image = Image.alpha_composite(backdrop, image.convert("RGBA"))
    image = image.convert("RGB")
    return image if turn is None else image.transpose(turn)


def orientation(exif):
    """Returns what an EXIF block says of the orientation, 1 to 8; 1, upright, where it says nothing or is broken."""
    order = {b"II*\0": "little", b"MM\0*": "big"}.get(exif[:4], "")
    if not order:
        return 1
    start = int.from_bytes(exif[4:8], order)
    count = int.from_bytes(exif[start : start + 2], order)
    entries = exif[start + 2 : start + 2 + 12 * count]
    for i in range(0, len(entries) - 11, 12):
        tag, kind, value = (int.from_bytes(entries[i + j : i + j + 2], order) for j in (0, 2, 8))
        if (tag, kind) == (ORIENTATION, SHORT):
            return value if value in TURNS else 1
    return 1


def _bytes(file):
    size = file.seek(0, os.SEEK_END)
    if size > BYTE_LIMIT:
        raise ValueError(f"more than {BYTE_LIMIT:,} bytes")
    file.seek(0)
    return file.read(size)  # which allocates what it is told before it reads


def _open(file, formats):
    """Returns the `PIL.Image` of a file, not decoded yet."""
    most = Image.MAX_IMAGE_PIXELS
    try:
        image = Image.open(file, formats=formats)
    except UnidentifiedImageError:
        raise ValueError(f"no readable {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError:
        raise ValueError(f"more than {most:,} pixels") from None
    _check_size(*image.size)  # PIL itself only warns up to twice this size.
    return image


def _check_size(width, height):
    if width * height > Image.MAX_IMAGE_PIXELS:
        raise ValueError(f"{width} x {height} pixels, but at most {Image.MAX_IMAGE_PIXELS:,} are read")


def _jpeg(data, draft):
    """Returns (decoded image, EXIF block) of the bytes of a JPEG."""
    head, jfif, adobe, exif, frame, at = b"", b"", b"", b"", b"", 2
    for _ in range(PART_LIMIT):
        marker = data[at + 1 : at + 2]
        if at + 4 > len(data) or data[at : at + 2] == SCAN or len(head) > TABLE_LIMIT:
            break
        if data[at] != 0xFF or marker in (b"\xff", b"\0"):  # filling, or rubbish that all decoders pass over
            at += 1
            continue
        if marker[0] in BARE:
            at += 2
            continue
        end = at + 2 + max(int.from_bytes(data[at + 2 : at + 4]), 2)
        segment, at = data[at:end], end
        if marker[0] in FRAMES + TABLES:
            head += segment
            frame = segment if marker[0] in FRAMES else frame
        elif marker[0] in OTHER_FRAMES:
            raise ValueError("this JPEG is neither baseline nor progressive")
        elif segment[:2] == JFIF[:2] and segment[4:9] == JFIF[4:9] and len(segment) >= len(JFIF):
            jfif = JFIF
        elif segment[:2] == ADOBE[:2] and segment[4:9] == ADOBE[4:9] and len(segment) >= len(ADOBE):
            adobe = ADOBE[:-1] + segment[15:16]
        elif segment[:2] == EXIF[0] and segment[4:10] == EXIF[1]:
            exif = exif or segment[10 : 10 + EXIF_LIMIT]
    scans, found, _ = data[at:].partition(END)
    if not found or data[at : at + 2] != SCAN or len(frame) < 10 or len(head) > TABLE_LIMIT:
        raise ValueError("this JPEG has no picture, or ends early")
    height, width, channels = int.from_bytes(frame[5:7]), int.from_bytes(frame[7:9]), frame[9]
    if frame[4] != 8 or channels not in (1, 3, 4):
        raise ValueError("this JPEG has other than 8 bits a channel, or other than 1, 3 or 4 channels")
    count = scans.count(SCAN)
    if count > SCAN_LIMIT or count * (height + BLOCK) * (width + BLOCK) > WORK_LIMIT:
        raise ValueError("this JPEG goes over its pixels more often than any picture needs")
    if channels == 4 and not adobe:
        adobe = ADOBE
    image = _open(io.BytesIO(data[:2] + jfif + adobe + head + scans + END), ("JPEG",))
    if draft is not None:
        image.draft("RGB", (draft, draft))
    image.load()
    if image.mode == "CMYK":  # Pillow's own conversion rounds another way than TensorFlow's.
        colour = 255 - np.asarray(image, np.uint16)
        image = Image.fromarray((colour[..., :3] * colour[..., 3:] // 255).astype(np.uint8))
    return image, exif


def _png(data):
    """Returns (decoded image, EXIF block) of the bytes of a PNG."""
    chunks, picture, last, at = {}, [], 0, len(PNG)
    for _ in range(PART_LIMIT):
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4])
        if at + 12 > len(data) or end > len(data) or kind == IEND[4:8]:
            break
        if kind == b"IDAT" and (not picture or at == last):
            picture.append(data[at:end])
            last = end
        elif kind == b"eXIf" or kind in (b"IHDR", b"PLTE", b"tRNS") and not picture:
            chunks.setdefault(kind, data[at:end])
        at = end
    header = chunks.get(b"IHDR", b"")
    if not data.startswith(header, len(PNG)) or len(header) != 25 or not picture:
        raise ValueError("this PNG has no picture, or ends early")
    width, height, depth, colour = struct.unpack(">IIBB", header[8:18])
    palette, key = (chunks.get(kind, b"")[8:-4] for kind in (b"PLTE", b"tRNS"))
    if colour == 3 and (not 0 < len(palette) <= 768 or len(palette) % 3):
        raise ValueError("this PNG has no palette, or a broken one")
    # The samples of the transparent colour; of a palette the opacity of its colours. Of another size it says nothing.
    if len(key) != {0: 2, 2: 6}.get(colour) and not (colour == 3 and 0 < len(key) <= len(palette) // 3):
        key = b""
    row = width * depth * CHANNELS[min(colour, 7)] // 8 + 4
    if sum(len(chunk) - 12 for chunk in picture) > stream_limit(height, row):
        raise ValueError("this PNG has more data than its pixels need")
    if header[18:20] != b"\0\0" or header[20] > 1:
        raise ValueError("this PNG is compressed, filtered or interlaced in an unknown way")
    colours = [chunks[b"PLTE"]] if colour == 3 else []
    key_chunk = [chunks[b"tRNS"]] if key else []
    if any(int.from_bytes(x[-4:]) != zlib.crc32(x[4:-4]) for x in (header, *colours, *key_chunk, *picture)):
        raise ValueError("this PNG has a wrong checksum")
    _check_size(width, height)  # before anything is inflated
    least = _stream_size(width, height, depth * CHANNELS[min(colour, 7)], header[20])
    _check_stream(picture, least, 2 * height * row + 4096)
    if colour == 3:  # A palette's colours that are left out are black.
        content = b"PLTE" + palette.ljust(3 << depth, b"\0")
        colours = [struct.pack(">I", len(content) - 4), content, struct.pack(">I", zlib.crc32(content)), *key_chunk]
    file = io.BytesIO(b"".join([PNG, header, *colours, *picture, IEND]))
    image = _open(file, ("PNG",))
    image.load()
    samples = np.asarray(image)
    if image.mode.startswith("I"):  # 16 bits per pixel, which PIL would clip to 8 instead of scaling.
        image = Image.fromarray((samples >> 8).astype(np.uint8))
    if key and colour != 3:
        if depth < 8:
            samples = np.asarray(image.convert("L")) // (255 // (2**depth - 1))
        elif (depth, colour) == (16, 2):  # Pillow gives the high bytes; told another order of bytes, the low ones.
            file.seek(0)
            low = _open(file, ("PNG",))
            low.tile = [tile._replace(args="RGB;16L") for tile in low.tile]
            samples = samples.astype(np.uint16) << 8 | np.asarray(low)
        same = samples == np.frombuffer(key, ">u2") & 2**depth - 1
        pixels = np.array(image.convert("RGB"))
        pixels[same.reshape(*pixels.shape[:2], -1).all(axis=-1)] = BACKDROP
        image = Image.fromarray(pixels)
    return image, chunks.get(b"eXIf", b"")[8:-4]


def stream_limit(height, row):
    """Returns how many compressed bytes a PNG has at most, of rows of `row` bytes: for noise, a little more."""
    return 9 * height * row // 8 + 4096


def _stream_size(width, height, bits, interlaced):
    """Returns the bytes of a PNG's rows, each after the kind of its filter; `bits` are those of a pixel."""
    sizes = [(-(-(height - y) // dy), -(-(width - x) // dx)) for x, y, dx, dy in (PASSES if interlaced else WHOLE)]
    return sum(rows * (1 + -(-columns * bits // 8)) for rows, columns in sizes if rows > 0 and columns > 0)


def _check_stream(chunks, least, most):
    """Raises ValueError where the compressed stream of a PNG is broken, short, or goes on long after its last pixel."""
    stream, size = zlib.decompressobj(), 0
    for chunk in chunks:
        rest = chunk[8:-4]
        while rest and not stream.eof and size <= most:
            size += len(stream.decompress(rest, 2**16))
            rest = stream.unconsumed_tail
    if size > most:
        raise ValueError("this PNG has more data than its pixels need")
    if not stream.eof or size < least:
        raise ValueError("this PNG has no picture, or ends early")

"""docs/formats.md: its table is made of files of every kind. Run as a program, this writes the table."""

import io
import pathlib
import re
import tempfile

import image_files
import numpy as np
import tensorflow as tf
from PIL import Image

from cdc_keras.data.image_file import read_image
from cdc_keras.export.image_bytes import decode_batch
from cdc_keras.markdown import markdown_table

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs/formats.md"
MARKS = re.compile(r"(<!-- table of formats -->\n).*?(<!-- /table of formats -->)", re.S)
HEIGHT, WIDTH, SIZE = 31, 47, 32
HOW = {  # by the first of these that a kind of file contains
    "EXIF": "turned upright",
    "moving": "its first picture",
    "tRNS": "transparent pixels as grey 128",
    "with alpha": "put on grey 128",
    "palette": "every index as its colour, one beyond the palette as black",
    "PNG: grey": "scaled to 8 bits, of 16 the upper 8; three equal channels",
    "PNG: RGB": "of 16 bits the upper 8",
    "grey": "three equal channels",
    "CMYK": "taken for inverted, as programs write it",
    "YCCK": "turned into CMYK, taken for inverted",
    "YCbCr": "turned into RGB",
    "": "as it is",
}


def files():
    """Yields (kind, bytes) of files; a kind may come several times."""
    for name, _, depths, _ in image_files.COLOUR_TYPES.values():
        bits = ", ".join(map(str, depths[:-1])) + f" or {depths[-1]}"
        for label, data in image_files.pngs(HEIGHT, WIDTH):
            if label.startswith(f"{name}, "):
                seen = ", transparent by tRNS" if "tRNS" in label else ""
                yield f"PNG: {name}, {bits} bits{seen}", data
    for label, data in image_files.jpegs(HEIGHT, WIDTH):
        yield "JPEG: " + re.sub(", 4:.*|, progressive", "", label), data
    image = Image.fromarray(image_files.samples(np.random.default_rng(0), HEIGHT, WIDTH, 4, 8).astype(np.uint8))
    rgb = image.convert("RGB")
    for kind in ("PNG", "JPEG"):
        for orientation in range(1, 9):
            yield (
                f"{kind}: with an EXIF orientation",
                image_files.with_exif(saved(rgb, kind), image_files.exif(orientation)),
            )
    yield "PNG: moving", saved(rgb, "PNG", save_all=True, append_images=[rgb.transpose(Image.Transpose.ROTATE_180)])
    yield from (
        ("WEBP: lossy", saved(rgb, "WEBP")),
        ("WEBP: lossless, with alpha", saved(image, "WEBP", lossless=True)),
    )
    yield from (
        ("BMP: 1, 8, 24 or 32 bits", saved(image.convert(mode), "BMP")) for mode in ("1", "L", "P", "RGB", "RGBA")
    )
    for kind in ("GIF", "TIFF", "PPM", "EPS", "ICO", "JPEG2000", "AVIF"):
        if (extension := {"JPEG2000": ".jp2"}.get(kind, f".{kind.lower()}")) in Image.registered_extensions():
            yield kind, saved(rgb, Image.registered_extensions()[extension])
    photo = saved(rgb, "JPEG")
    yield "JPEG: lossless, arithmetic or of 12 bits", photo.replace(b"\xff\xc0", b"\xff\xc3", 1)
    yield "JPEG: lossless, arithmetic or of 12 bits", photo.replace(b"\xff\xc0", b"\xff\xc9", 1)
    yield "JPEG: lossless, arithmetic or of 12 bits", photo.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c", 1)
    picture = saved(rgb, "PNG")
    yield "PNG: with a wrong checksum", picture[:-20] + bytes([picture[-20] ^ 1]) + picture[-19:]
    yield from (("JPEG or PNG: cut off", data[: len(data) // 2]) for data in (photo, picture))


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def table():
    """Returns the table, and the greatest difference in grey levels of what both read."""
    serve = tf.function(lambda x: decode_batch(x, SIZE), input_signature=[tf.TensorSpec((None,), tf.string)])
    rows, greatest = {}, 0
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "file")
        for kind, data in files():
            path.write_bytes(data)
            try:
                trained = read_image(path, SIZE).astype(int)
            except Exception:
                trained = None
            try:
                served = serve(tf.constant([data]))[0].numpy()
            except tf.errors.InvalidArgumentError:
                served = None
            if trained is not None and served is not None:
                greatest = max(greatest, abs(trained - served).max())
            rows.setdefault(kind, set()).add((trained is not None, served is not None))
    assert all(len(states) == 1 for states in rows.values()), rows  # files of one kind are read alike
    lines = []
    for kind, ((trained, served),) in rows.items():
        how = next(text for word, text in HOW.items() if word in kind) if trained else "refused"
        lines.append((kind, *("yes" if state else "no" for state in (trained, served)), how))
    return markdown_table(("file", "trained on", "served", "how it is read"), lines), greatest


def filled():
    text, greatest = table()
    return MARKS.sub(lambda match: f"{match[1]}{text}\n{match[2]}", PAGE.read_text(encoding="utf-8")), greatest


def test_the_table_of_formats_says_what_becomes_of_a_file_of_each_kind():
    page, greatest = filled()
    assert page == PAGE.read_text(encoding="utf-8"), "the table is stale: python tests/export/test_formats.py"
    assert greatest <= 1


if __name__ == "__main__":
    PAGE.write_text(filled()[0], encoding="utf-8")

"""What TensorFlow Serving does with a request: protos and REST bodies to tensors, a signature, and back.

Run as a program, `python tests/serving.py <model> <inputs.npz> <outputs.npz>`, it answers each array of the inputs,
named "<signature> <input> <anything>", in a process that has TensorFlow alone, and then bears hostile input.
"""

import base64
import io
import json
import resource
import struct
import sys
import zlib

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2


def predict(model, request):
    """Returns the `PredictResponse` to a `PredictRequest`."""
    name = request.model_spec.signature_name or "serving_default"
    inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
    response = predict_pb2.PredictResponse()
    response.model_spec.CopyFrom(request.model_spec)
    for key, value in model.signatures[name](**inputs).items():
        if not request.output_filter or key in request.output_filter:
            response.outputs[key].CopyFrom(tf.make_tensor_proto(value.numpy()))
    return response


def rest(model, body):
    """Returns the response body to a body in the row format, both JSON text."""
    request = json.loads(body)
    function = model.signatures[request.get("signature_name", "serving_default")]
    specs = {spec.name: spec for spec in function.structured_input_signature[1].values()}
    columns = {key: [_decoded(row[key]) for row in request["instances"]] for key in request["instances"][0]}
    outputs = function(**{key: tf.constant(values, specs[key].dtype) for key, values in columns.items()})
    outputs = {key: [_encoded(value) for value in values.numpy()] for key, values in outputs.items()}
    if len(outputs) == 1:  # whose name the server leaves out
        return json.dumps({"predictions": next(iter(outputs.values()))})
    rows = [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]
    return json.dumps({"predictions": rows})


def _decoded(value):
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value


def _encoded(value):
    if isinstance(value, bytes):
        return value.decode()
    return [_encoded(x) for x in value] if np.ndim(value) else value.item()


def png_that_says(width, height):
    """Returns the bytes of a PNG with these sizes in its header and next to nothing behind it."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def hostile(count, seed=0):
    """Yields byte strings that are no images, many of which begin as some."""
    rng = np.random.default_rng(seed)
    whole = tf.io.encode_png(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)).numpy()
    photo = tf.io.encode_jpeg(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)).numpy()
    yield from (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", whole[: len(whole) // 2], photo[: len(photo) // 2])
    yield from (png_that_says(20_000, 20_000), png_that_says(2**31 - 1, 2**31 - 1), png_that_says(0, 5))
    at = photo.index(b"\xff\xc0") + 5
    yield photo[:at] + struct.pack(">HH", 20_000, 20_000) + photo[at + 4 :]
    starts = (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM")
    for i in range(count):
        yield starts[i % len(starts)] + rng.bytes(rng.integers(1, 300))


def costly():
    """Yields small files that are images, but take much memory where nobody looks before decoding."""
    yield tf.io.encode_png(tf.zeros((2, 1_000_000, 3), tf.uint8)).numpy()
    yield tf.io.encode_png(tf.fill((4096, 4096, 4), tf.constant(100, tf.uint8))).numpy()
    image = tf.io.encode_png(tf.zeros((32, 32, 3), tf.uint8)).numpy()
    at, text = image.index(b"IDAT") - 4, zlib.compress(bytes(7_900_000))
    yield image[:at] + b"".join(_chunk(b"zTXt", b"%d\0\0" % i + text) for i in range(60)) + image[at:]


def main(path, inputs, outputs):
    sys.modules["cdc_keras"] = None  # an import of it, or of a part of it, fails
    model, answers = tf.saved_model.load(path), {}
    with np.load(inputs, allow_pickle=False) as arrays:
        for name, values in arrays.items():
            signature, key, _ = name.split(" ")
            if values.dtype.kind == "S":
                values = [bytes(value) for value in values]
            for output, answer in model.signatures[signature](**{key: tf.constant(values)}).items():
                answer = answer.numpy()
                answers[f"{name} {output}"] = answer.astype("S") if answer.dtype == object else answer
    before, refused = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    for encoded in (*costly(), *hostile(2_000)):
        try:
            model.signatures["serve_bytes"](image_bytes=tf.constant([encoded]))
        except tf.errors.InvalidArgumentError:
            refused += 1
    answers["refused"], answers["grown"] = refused, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    file = io.BytesIO()
    np.savez(file, **answers)
    with open(outputs, "wb") as out:
        out.write(file.getvalue())


if __name__ == "__main__":
    main(*sys.argv[1:])

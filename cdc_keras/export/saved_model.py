"""A trained network as a SavedModel for TensorFlow Serving."""

import dataclasses

import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from cdc_keras.export.folding import folded
from cdc_keras.export.image_bytes import decode_batch
from cdc_keras.export.signatures import functions_of_pixels

WARMUP = "assets.extra/tf_serving_warmup_requests"
GREY = 128


def write(folder, name, trained, classes):
    """Writes saved_model.pb, variables, assets and warm-up requests, and returns {signature: its concrete function}.

    Args:
        folder: `pathlib.Path` of the version of the model, which is there.
        name: of the model.
        trained: the `Trained` of a trained network.
        classes: path of a text file with a category a line; it becomes an asset.
    """
    module, signatures = served(trained, classes)
    tf.saved_model.save(module, str(folder), signatures=signatures)
    _write_warmup(folder / WARMUP, name, signatures)
    return signatures


def served(trained, classes):
    """Returns (a `tf.Module` with all that is saved, {signature: its concrete function}); arguments as for `write`."""
    trained = dataclasses.replace(trained, network=folded(trained.network))
    module, functions, size = tf.Module(), functions_of_pixels(trained), trained.config.image_size
    module.weights = [variable.value for variable in trained.network.variables]
    # The labels are not looked up in the asset: a table is named by the path of its file on the machine that exports.
    module.classes = tf.saved_model.Asset(str(classes))

    def labelled(function, images):
        answer = function(images)
        if "top_classes" in answer:
            answer["top_labels"] = tf.gather(tf.constant(trained.class_names), answer.pop("top_classes"))
        return answer

    pixels = tf.TensorSpec((None, size, size, 3), tf.uint8, name="images")
    encoded = tf.TensorSpec((None,), tf.string, name="image_bytes")
    signatures = {
        name: _concrete(lambda images, f=function: labelled(f, images), pixels) for name, function in functions.items()
    }
    default = functions["serving_default"]
    signatures["serve_bytes"] = _concrete(
        lambda image_bytes: labelled(default, decode_batch(image_bytes, size)), encoded
    )
    return module, signatures


def _concrete(function, spec):
    """Returns the concrete function of a batch that refuses one of another shape, or empty.

    A signature's shapes are a promise that nobody checks: kernels that were chosen by them end the process where a
    batch of another rank comes. And a check of what is known is left out of the graph, so it is made unknown for it.
    """

    def checked(batch):
        batch = tf.ensure_shape(tf.raw_ops.PlaceholderWithDefault(input=batch, shape=tf.TensorShape(None)), spec.shape)
        some = tf.debugging.Assert(tf.shape(batch)[0] > 0, ["send at least one image; this request has none"])
        with tf.control_dependencies([some]):
            return function(tf.identity(batch))

    return tf.function(checked, input_signature=[spec], autograph=False).get_concrete_function()


def _write_warmup(path, name, signatures):
    """Writes a request of one image for each signature, so that none waits for what a first call sets up."""
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as file:
        for signature, function in signatures.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.name, request.model_spec.signature_name = name, signature
            for spec in function.structured_input_signature[0]:
                request.inputs[spec.name].CopyFrom(tf.make_tensor_proto(_example(spec)))
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            file.write(log.SerializeToString())


def _example(spec):
    """Returns one image as a signature takes it: pixels, or the bytes of a PNG."""
    if spec.dtype == tf.string:
        return [tf.io.encode_png(tf.fill((8, 8, 3), tf.constant(GREY, tf.uint8))).numpy()]
    return tf.fill((1, *spec.shape[1:]), tf.constant(GREY, tf.uint8))

"""The signatures of an exported network: functions of uint8 pixels for a TensorFlow graph."""

import keras
import tensorflow as tf

from cdc_keras.data.pipeline import scale
from cdc_keras.gate.parts import parts
from cdc_keras.networks import graph
from cdc_keras.visualize.maps import focus_map, last_features

TOP = 5


def functions_of_pixels(trained):
    """Returns {name of a signature: its function of images (B, S, S, 3) uint8, which returns a dict of tensors}.

    They are those of `export` that take pixels; in the place of top_labels they give top_classes, (B, min(5, K)) int32.

    Args:
        trained: the `Trained` of a trained network.
    """
    if trained.config.task == "extractor":

        def extracted(images):
            return {"context": trained.network(scale(images), training=False)}

        return {"serving_default": extracted, "context": extracted}
    network, tensors = graph.outputs(trained.network)
    gate = parts(trained.network)
    layers = {f"channel_weights_{site.name}": site.compatibility for site in gate.sites}
    layers |= {"attention": gate.attention, "context": gate.extractor}
    inside = {output: tensors[layer] for output, layer in layers.items() if layer in tensors}
    given = keras.tree.flatten(inside.pop("context", ()))  # T, and V where the gate has it
    context = dict(zip(("context", "spread"), given, strict=False))
    inside |= {"logits": network.outputs[0], "features": tensors[last_features(trained.network)]}
    classify, explain, extract = (
        keras.Model(network.inputs, outputs) if outputs else None
        for outputs in ({"logits": inside["logits"]}, inside, context)
    )

    def explained(images):
        seen = explain(scale(images), training=False)
        answer = _classes(seen.pop("logits")) | {"focus": focus_map(tf.nn.relu(seen.pop("features")), images.shape[1])}
        if "attention" in seen:
            answer["attention"] = seen.pop("attention")[..., 0]
        return answer | {output: weights[:, 0, 0] for output, weights in seen.items()}

    functions = {
        "serving_default": lambda images: _classes(classify(scale(images), training=False)["logits"]),
        "explain": explained,
    }
    if extract is not None:
        functions["context"] = lambda images: extract(scale(images), training=False)
    return functions


def compiled(trained):
    """Returns {name of a signature: `tf.function` of any number of images}, of `functions_of_pixels`."""
    size = trained.config.image_size
    signature = [tf.TensorSpec((None, size, size, 3), tf.uint8, name="images")]
    functions = functions_of_pixels(trained)
    return {name: tf.function(f, input_signature=signature, autograph=False) for name, f in functions.items()}


def _classes(logits):
    probabilities = tf.nn.softmax(logits)
    scores, classes = tf.math.top_k(probabilities, min(TOP, logits.shape[-1]))
    return {"probabilities": probabilities, "top_classes": classes, "top_scores": scores}

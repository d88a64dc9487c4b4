"""A trained network as one LiteRT file (formerly TensorFlow Lite), for phones, browsers and small servers.

In 8 bits weights and features are whole numbers. The range of each feature map is that which it has on some images.
"""

import dataclasses
import re
import tempfile

import tensorflow as tf

from cdc_keras.errors import UserError
from cdc_keras.export.folding import folded
from cdc_keras.export.signatures import compiled

MODEL = "model.tflite"
NOT_CONVERTED = {"serve_bytes": "LiteRT has no operator that decodes JPEG or PNG; send pixels"}
MISSING = re.compile(r"TF Select ops: (.*)")  # in what the converter says


def write(folder, trained, images=None):
    """Writes `MODEL`, with every signature that takes pixels, and returns {signature: its concrete function}.

    Instead of labels, strings, they give top_classes, numbers of lines of the file of categories.

    Args:
        folder: `pathlib.Path` of the version of the model, which is there.
        trained: the `Trained` of a trained network.
        images: (N, S, S, 3) uint8 that show the ranges of features, for a network that computes in 8 bits; None for
            one that computes in float32.

    Raises:
        UserError: LiteRT has no operator for something in the network.
    """
    trained = dataclasses.replace(trained, network=folded(trained.network))
    module = tf.Module()
    module.weights = [variable.value for variable in trained.network.variables]
    functions = {name: function.get_concrete_function() for name, function in compiled(trained).items()}
    with tempfile.TemporaryDirectory() as place:
        tf.saved_model.save(module, place, signatures=functions)
        converter = tf.lite.TFLiteConverter.from_saved_model(place, signature_keys=list(functions))
        if images is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: (
                (name, {"images": image[None]}) for name in functions for image in images
            )
        try:
            model = converter.convert()
        except Exception as error:  # the class is private
            missing = MISSING.search(str(error))
            if missing is None:
                raise
            raise UserError(
                f"LiteRT has no operator for a part of this network, {missing[1]}; export it as saved_model"
            ) from error
    (folder / MODEL).write_bytes(model)
    return functions

"""A trained network as ONNX files, one a signature."""

import re

from cdc_keras.errors import UserError
from cdc_keras.export.signatures import compiled

OPSET = 18
NOT_CONVERTED = {"serve_bytes": "ONNX has no operator that decodes JPEG or PNG; send pixels"}


def write(folder, trained):
    """Writes `<signature>.onnx` for every signature that takes pixels, and returns {signature: its concrete function}.

    Instead of labels, strings, they give top_classes, numbers of lines of the file of categories.

    Args:
        folder: `pathlib.Path` of the version of the model, which is there.
        trained: the `Trained` of a trained network.

    Raises:
        UserError: tf2onnx is not installed, or ONNX has no operator for something in the network.
    """
    try:
        import onnx  # only those who want ONNX need them
        import tf2onnx
    except ImportError as error:
        raise UserError(
            'ONNX is written by tf2onnx, which is not installed; pip install "tf2onnx>=1.17,<1.18"'
        ) from error

    functions = compiled(trained)
    for name, function in functions.items():
        path = str(folder / f"{name}.onnx")
        tf2onnx.convert.from_function(function, input_signature=function.input_signature, opset=OPSET, output_path=path)
        try:
            onnx.checker.check_model(path)  # tf2onnx leaves in what it cannot convert
        except onnx.checker.ValidationError as error:
            missing = re.search(r"No Op registered for (\w+)", str(error))
            raise UserError(
                f"ONNX has no operator for a part of this network, {missing[1] if missing else error}; "
                "export it as saved_model"
            ) from error
    return {name: function.get_concrete_function() for name, function in functions.items()}

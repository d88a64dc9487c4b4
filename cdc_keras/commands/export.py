"""cdc-keras export: a trained model as TensorFlow Serving, ONNX Runtime or LiteRT load it."""

from cdc_keras.export.export import export


def main(values):
    """Exports `--model` and prints the signatures of what was written."""
    settings = {name: values[name].value for name in ("version", "format", "data_dir")}
    exported = export(values.model, values.out, **settings)
    for name, signature in exported.metadata["signatures"].items():
        print(f"{name}: {_tensors(signature['inputs'])}\n  -> {_tensors(signature['outputs'])}")
    for name, reason in exported.metadata.get("not_converted", {}).items():
        print(f"{name}: not converted, as {reason}")
    print(f"the model is in {exported.folder}; docs/serving.md says how to serve it")


def _tensors(specifications):
    return ", ".join(f"{name} {text}" for name, text in specifications.items())

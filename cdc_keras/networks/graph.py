"""Walking a functional model layer by layer: the one mechanism under splicing, counting and looking inside."""

import keras


def rebuild(model, call, inputs=None):
    """Returns `model` rebuilt from the same layers (and weights), each applied by `call(layer, *args, **kwargs)`.

    Args:
        model: a functional `keras.Model`.
        call: applies one layer and returns its output, or something else of the same shape in its place.
        inputs: tensors to build upon; new ones by default.

    Raises:
        TypeError: if `model` has no graph to walk.
    """
    if isinstance(model, keras.Sequential):
        if not model.built:
            raise TypeError("this Sequential model has no input shape yet; start it with keras.Input(...)")
        model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    if not hasattr(model, "operations"):
        raise TypeError(
            f"expected a functional keras.Model, built as keras.Model(inputs, outputs); got {type(model).__name__}, "
            "a subclassed model, whose layers can not be walked"
        )
    if inputs is not None:  # in the structure the model was built with: a tensor, or a list of one
        inputs = keras.tree.pack_sequence_as(model.input, keras.tree.flatten(inputs))
    return keras.models.clone_model(model, input_tensors=inputs, clone_function=lambda layer: layer, call_function=call)


def trace(model):
    """Returns (model rebuilt, calls): every application of a layer, in order, as (layer, [input tensors], output)."""
    calls = []

    def call(layer, *args, **kwargs):
        output = layer(*args, **kwargs)
        inputs = [x for x in keras.tree.flatten((args, kwargs)) if isinstance(x, keras.KerasTensor)]
        calls.append((layer, inputs, output))
        return output

    return rebuild(model, call), calls


def outputs(model):
    """Returns (model rebuilt, {name of a layer: its output in the rebuilt model}), in the order they are applied.

    A layer shared by several models has an output in each; these are the ones of `model`.
    """
    rebuilt, calls = trace(model)
    return rebuilt, {layer.name: output for layer, _, output in calls}


def activations(model, names):
    """Returns a model from the inputs of `model` to {name: output of the layer `name`} for each of `names`.

    Raises:
        ValueError: naming the layers there are, for a name that is none of them.
    """
    rebuilt, tensors = outputs(model)
    missing = [name for name in names if name not in tensors]
    if missing:
        raise ValueError(f"no layer named {', '.join(missing)}; there are {', '.join(tensors)}")
    return keras.Model(rebuilt.inputs, {name: tensors[name] for name in names})

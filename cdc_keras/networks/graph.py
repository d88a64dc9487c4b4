"""Walking a functional model layer by layer: the one mechanism under splicing, counting and looking inside."""

import collections

import keras

CONVERSION = type(keras.ops.convert_to_tensor(keras.KerasTensor((1,)))._keras_history.operation)


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
            "a subclassed model, whose layers cannot be walked"
        )
    if inputs is not None:  # in the structure the model was built with: a tensor, or a list of one
        inputs = keras.tree.pack_sequence_as(model.input, keras.tree.flatten(inputs))
    return keras.models.clone_model(model, input_tensors=inputs, clone_function=lambda layer: layer, call_function=call)


def flatten(model):
    """Returns `model` rebuilt from the same layers with those of the models inside it, at any depth, in their place.

    A model inside is a functional or Sequential one, such as a pretrained backbone under a new head. What it was called
    with (`training=False`) its layers are called with.

    Raises:
        TypeError: if `model` has no graph to walk.
        ValueError: if two layers would have one name.
    """
    flat = trace(model)[0]
    while any(map(_is_nested, flat.layers)):
        inside = [layer.layers if _is_nested(layer) else [layer] for layer in flat.layers]
        names = collections.Counter(x.name for x in sum(inside, []) if not isinstance(x, keras.layers.InputLayer))
        if twice := sorted(name for name, count in names.items() if count > 1):
            raise ValueError(
                f"the models inside this one have several layers named {twice[0]!r}; give each layer a name of its own"
            )
        flat = rebuild(rebuild(flat, _unfolded), _unconverted)
    return flat


def _unfolded(layer, *args, **kwargs):
    # Called as a layer, a model is one node of the graph; its own `call` adds a node for each of its layers.
    return layer.call(*args, **kwargs) if _is_nested(layer) else layer(*args, **kwargs)


def _unconverted(layer, *args, **kwargs):
    # ... and one before them that makes a tensor of what is one.
    output = layer(*args, **kwargs)
    return args[0] if isinstance(layer, CONVERSION) and output.dtype == args[0].dtype else output


def _is_nested(layer):
    """Whether a layer is a model whose `call` does nothing but apply its layers."""
    own = hasattr(layer, "operations") and type(layer).call.__qualname__ == "Functional.call"
    return isinstance(layer, keras.Sequential) or own


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

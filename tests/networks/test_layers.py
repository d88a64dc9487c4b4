"""Layers that stand in for Keras' own do the same."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cdc_keras.networks.layers import BatchNormalization, ChannelCompatibility, ConditionMaps, UnitSigmoid

FEATURES = np.random.default_rng(0).normal(0.5, 2.0, (6, 9, 7, 5)).astype("float32")


def applied(layer, training):
    """Returns what a batch norm gives and learns: output, gradients at input, gamma and beta, and moving statistics."""
    layer.build(FEATURES.shape)
    layer.gamma.assign(np.linspace(0.5, 2, 5))
    layer.beta.assign(np.linspace(-1, 1, 5))
    layer.moving_mean.assign(np.linspace(-0.5, 0.5, 5))
    features = tf.cast(FEATURES, layer.compute_dtype)
    with tf.GradientTape() as tape:
        tape.watch([features, layer.gamma.value, layer.beta.value])
        outputs = layer(features, training=training)
        loss = tf.reduce_sum(tf.cast(outputs, tf.float32) * tf.sin(FEATURES))
    gradients = tape.gradient(loss, [features, layer.gamma.value, layer.beta.value])
    assert outputs.dtype == gradients[0].dtype == layer.compute_dtype
    return [np.asarray(x, "float32") for x in (layer.moving_mean, layer.moving_variance, outputs, *gradients)]


# Where the features have 16 bits, both compute in float32 and round to 8 or 11 significant bits at the end.
@pytest.mark.parametrize(
    ("precision", "rounding"), [("float32", 2e-6), ("mixed_bfloat16", 2**-8), ("mixed_float16", 2**-11)]
)
@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_fused_batch_norm_is_keras_batch_norm(training, trainable, precision, rounding):
    settings = {"momentum": 0.9, "epsilon": 1e-5, "trainable": trainable, "dtype": precision}
    fused, expected = (
        applied(layer(**settings), training) for layer in (BatchNormalization, keras.layers.BatchNormalization)
    )
    for i, (ours, theirs) in enumerate(zip(fused, expected, strict=True)):
        # the statistics are float32 in any case, sums of 378 values
        assert abs(ours - theirs).max() <= (2e-6 if i < 2 else rounding) * abs(theirs).max(), i


def test_batch_norm_is_fused_in_a_training_step():
    """Without it a step takes 1.4 times as long, which nothing else would show."""
    layer = BatchNormalization()
    graph = tf.function(lambda x: layer(x, training=True)).get_concrete_function(tf.constant(FEATURES)).graph
    assert "FusedBatchNormV3" in {operation.type for operation in graph.get_operations()}


@pytest.mark.parametrize("transposed, kernel, stride", [(False, 3, 1), (True, 4, 2)])
def test_condition_maps_are_the_convolution_of_the_conditions_planes(transposed, kernel, stride):
    rng = np.random.default_rng(0)
    features, condition = rng.normal(size=(5, 6, 6, 4)), rng.normal(size=(5, 3))
    kernels = rng.normal(size=(kernel, kernel, 2, 7) if transposed else (kernel, kernel, 7, 2))
    layer = ConditionMaps(2, kernel, strides=stride, size=6, transposed=transposed, kernel_initializer="zeros")
    layer.build((None, 3))
    layer.kernel.assign(kernels[..., 4:] if transposed else kernels[:, :, 4:])
    planes = np.broadcast_to(condition[:, None, None], (5, 6, 6, 3))
    convolve = keras.ops.conv_transpose if transposed else keras.ops.conv
    arrays = [x.astype("float32") for x in (np.concatenate([features, planes], -1), kernels)]
    together = convolve(*arrays, stride, "same")
    arrays = [x.astype("float32") for x in (features, kernels[..., :4] if transposed else kernels[:, :, :4])]
    parts = convolve(*arrays, stride, "same") + layer(condition.astype("float32"))
    assert tuple(parts.shape) == layer(keras.KerasTensor((5, 3))).shape
    np.testing.assert_allclose(parts, together, rtol=1e-4, atol=1e-4)


def test_a_compatibility_that_neither_sums_nor_averages_is_refused():
    with pytest.raises(ValueError, match="compatibility must be sum or mean, not 'typo'"):
        ChannelCompatibility(compatibility="typo")


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_the_unit_sigmoid_is_exactly_1_at_0_and_a_sigmoid_over_that_at_its_bias_elsewhere(dtype):
    layer = UnitSigmoid(3.0, dtype=dtype)
    z = np.concatenate([np.linspace(-12, 12, 97), [-200, 200]])
    values = keras.ops.convert_to_numpy(keras.ops.cast(layer(keras.ops.cast(z, dtype)), "float64"))
    assert values[z == 0] == 1
    expected = (1 + np.exp(-3)) / (1 + np.exp(-z - 3))
    # Half a unit in the last place of 16 bits; of float32 a few of tanh's, divided by exp(-3).
    tolerance = {"float32": 5e-6, "float64": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}[dtype]
    np.testing.assert_allclose(values, expected, atol=tolerance)
    assert values.max() <= 1 + np.exp(-3) + tolerance and values.min() >= 0
    assert UnitSigmoid.from_config(layer.get_config()).get_config() == layer.get_config()

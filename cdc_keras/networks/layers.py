"""The few layers Keras does not have: of the decoder's condition, T's noise, the frozen extractor and the gate."""

import math

import keras
from keras import ops

from cdc_keras.devices import distribution, precision

FUSIBLE = ("float32", "bfloat16", "float16")  # what TensorFlow's fused batch norm takes

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    def fused_batch_norm(x, gamma, beta, epsilon, statistics=None):
        """Returns (outputs, mean, variance) of (B, H, W, C) features in one operation; the statistics in float32.

        Args:
            x: the features, float32, bfloat16 or float16.
            gamma, beta: (C,) variables.
            epsilon: added to the variance.
            statistics: (mean, variance), (C,) variables to normalise by; those of the batch by default.
        """
        mean, variance = ([], []) if statistics is None else (v.value for v in statistics)
        training = statistics is None
        # Not tf.nn's wrapper, which raises epsilon to 1.001e-5.
        arguments = {"x": x, "scale": gamma.value, "offset": beta.value, "mean": mean, "variance": variance}
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(**arguments, epsilon=epsilon, is_training=training)
        if training:  # the operation gives the unbiased variance, Keras keeps the biased one
            count = tf.cast(tf.size(x) // x.shape[-1], variance.dtype)
            variance *= (count - 1) / count
        return outputs, mean, variance

else:
    fused_batch_norm = None


@keras.saving.register_keras_serializable("cdc_keras")
class ConditionMaps(keras.layers.Layer):
    """What a convolution gives for the condition's constant channels (A.1): (B, K) -> (B, H, W, filters).

    The convolution of [features; planes] is that of the features plus that of the planes, whose K values are the same
    at every position. So this convolves one plane of ones with the kernel of each value, and adds those K maps up by
    the values, in place of B x K planes: the same sum for a tenth of the multiply-adds.

    Args:
        filters: channels of the result.
        kernel_size, strides: of the convolution.
        size: height and width of the planes, pixels.
        transposed: whether the convolution is a transposed one.
        kernel_initializer: for the kernel, (k, k, K, filters) or, transposed, (k, k, filters, K).
    """

    def __init__(self, filters, kernel_size, *, strides, size, transposed, kernel_initializer, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.kernel_size, self.strides, self.size = filters, kernel_size, strides, size
        self.transposed, self.kernel_initializer = transposed, keras.initializers.get(kernel_initializer)

    def build(self, input_shape):
        channels = (self.filters, input_shape[-1]) if self.transposed else (input_shape[-1], self.filters)
        shape = (self.kernel_size, self.kernel_size, *channels)
        self.kernel = self.add_weight(shape=shape, initializer=self.kernel_initializer, name="kernel")

    def call(self, condition):
        ones = ops.ones((1, self.size, self.size, 1), condition.dtype)
        values, height = condition.shape[-1], self._output_size()
        k = self.kernel_size
        if self.transposed:
            kernel = ops.reshape(self.kernel, (k, k, self.filters * values, 1))
            maps = ops.conv_transpose(ones, kernel, self.strides, "same", data_format="channels_last")
            maps = ops.transpose(ops.reshape(maps, (-1, values)))
        else:
            kernel = ops.reshape(self.kernel, (k, k, 1, values * self.filters))
            maps = ops.conv(ones, kernel, self.strides, "same", data_format="channels_last")
            maps = ops.transpose(ops.reshape(maps, (-1, values, self.filters)), (1, 0, 2))
        maps = ops.matmul(condition, ops.reshape(maps, (values, -1)))
        return ops.reshape(maps, (-1, height, height, self.filters))

    def _output_size(self):
        return self.size * self.strides if self.transposed else self.size // self.strides

    def get_config(self):
        names = ("filters", "kernel_size", "strides", "size", "transposed")
        initializer = keras.initializers.serialize(self.kernel_initializer)
        return {**super().get_config(), **{n: getattr(self, n) for n in names}, "kernel_initializer": initializer}


@keras.saving.register_keras_serializable("cdc_keras")
class ZeroChannels(keras.layers.Layer):
    """Features with `channels` zero channels appended: the shortcut of option A (He et al. 2015a, Sec. 4.1)."""

    def __init__(self, channels, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels

    def call(self, features):
        return ops.pad(features, [(0, 0), (0, 0), (0, 0), (0, self.channels)])


@keras.saving.register_keras_serializable("cdc_keras")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' batch norm of (B, H, W, C), by TensorFlow's fused operation where there is one.

    Keras computes it by a dozen element-wise operations, with which a training step of ResNet-20 takes 1.4 times as
    long on a CPU. Both compute in float32 and keep float32 statistics, of features in 16 bits too. Other backends,
    float64 and several replicas are left to Keras.
    """

    def call(self, inputs, training=None, mask=None):
        fusible = inputs.dtype in FUSIBLE and len(inputs.shape) == 4 and not self.synchronized and mask is None
        if fused_batch_norm is None or not fusible:
            return super().call(inputs, training=training, mask=mask)
        if not (training and self.trainable):
            return fused_batch_norm(
                inputs, self.gamma, self.beta, self.epsilon, (self.moving_mean, self.moving_variance)
            )[0]
        outputs, mean, variance = fused_batch_norm(inputs, self.gamma, self.beta, self.epsilon)
        for moving, of_batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + of_batch * (1.0 - self.momentum))
        return outputs


@keras.saving.register_keras_serializable("cdc_keras")
class Dropout(keras.layers.Dropout):
    """Keras' dropout, but drawn for the whole batch: every replica of a strategy drops what a single one would."""

    def call(self, inputs, training=False):
        if not training or not self.rate or distribution.replicas() == 1:
            return super().call(inputs, training=training)
        shape = (ops.shape(inputs)[0] * distribution.replicas(), *inputs.shape[1:])
        ones = ops.ones(shape, inputs.dtype)
        kept = keras.random.dropout(ones, self.rate, seed=self.seed_generator)  # 0, or 1 / (1 - rate)
        return inputs * distribution.share_of_batch(kept)


@keras.saving.register_keras_serializable("cdc_keras")
class ContextNoise(keras.layers.Layer):
    """Normal noise added to T, new in every call, in training and in inference: details of T beside it are lost.

    Every replica of a strategy takes its part of one draw for the whole batch.

    Args:
        deviation: standard deviation of the noise, above 0.
    """

    def __init__(self, deviation, **kwargs):
        super().__init__(**kwargs)
        self.deviation = deviation
        self.seed_generator = keras.random.SeedGenerator(0)  # so that what is loaded draws the same again

    def call(self, mean):
        shape = (ops.shape(mean)[0] * distribution.replicas(), *mean.shape[1:])
        noise = keras.random.normal(shape, dtype=mean.dtype, seed=self.seed_generator)
        return mean + self.deviation * distribution.share_of_batch(noise)

    def get_config(self):
        return {**super().get_config(), "deviation": self.deviation}


@keras.saving.register_keras_serializable("cdc_keras")
class FrozenExtractor(keras.layers.Layer):
    """The context T of a batch of images, from a network that cannot be trained through this layer (Fig. 3).

    A copy of the network is kept, so that nothing done to the original reaches it. It always runs in inference mode, no
    gradient passes it, and `trainable` stays False whatever is assigned to it or to a model around it; its weights and
    batch-norm statistics are therefore bit-identical after `fit`. It computes in the precision it was made with, on
    images that no policy around it has rounded, and gives T in float32.

    Args:
        network: functional model, images (B, H, W, 3) in [-1, 1] -> T (B, h, w, C), or -> [T, V], V (B, h, w, 1).
    """

    def __init__(self, network, **kwargs):
        super().__init__(**{"dtype": keras.config.floatx(), **kwargs})
        self.network = keras.models.clone_model(network)
        self.network.set_weights(network.get_weights())
        self.network.trainable = False

    @property
    def trainable(self):
        return False

    @trainable.setter
    def trainable(self, value):
        del value  # an outer `model.trainable = True` sets every layer; the extractor is not to follow

    def call(self, images):
        given = self.network(images, training=False)
        return keras.tree.map_structure(lambda x: ops.cast(ops.stop_gradient(x), self.compute_dtype), given)

    def compute_output_shape(self, input_shape):
        return self.network.compute_output_shape(input_shape)

    def get_config(self):
        return {**super().get_config(), "network": keras.saving.serialize_keras_object(self.network)}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["network"] = keras.saving.deserialize_keras_object(config["network"])
        return cls(**config)


@keras.saving.register_keras_serializable("cdc_keras")
class ShuffledContext(keras.layers.Layer):
    """The context of another image: (B, h, w, C) -> (B, h, w, C), that of the image before it in the batch; or several.

    A control: what a gate gains from it has nothing to do with the image. In a batch of one T stays as it is, and in
    images stored class by class it stays one of the category; score images in random order.
    """

    def call(self, context):
        return keras.tree.map_structure(lambda x: ops.roll(x, 1, axis=0), context)


@keras.saving.register_keras_serializable("cdc_keras")
class ChannelPool(keras.layers.Layer):
    """P = [mean_c T; max_c T] (Eq. 3): (B, h, w, C) -> (B, h, w, 2).

    Args:
        reductions: what is taken over the channels, in this order; CBAM's order is ("max", "mean").
    """

    def __init__(self, reductions=("mean", "max"), **kwargs):
        super().__init__(**kwargs)
        self.reductions = tuple(reductions)

    def call(self, context):
        pooled = [getattr(ops, name)(context, axis=-1, keepdims=True) for name in self.reductions]
        return ops.concatenate(pooled, axis=-1)


@keras.saving.register_keras_serializable("cdc_keras")
class ChannelCompatibility(keras.layers.Layer):
    """C_i = scale * sigmoid(<Me, Fe_i>) (Eq. 4).

    Call with `[embedded_context, embedded_features]`: Me (B, H, W, 1) and Fe (B, H, W, C); returns (B, 1, 1, C).

    Deviation: `compatibility="mean"` averages the products over the positions where Eq. 4 sums them (`"sum"`). The sum
    grows with the map, and over 64 or 256 positions it drives the sigmoid to 0 or 1 within an epoch, where it stays.

    Deviation: `scale` is 1 in the paper. 2 makes C equal 1 where the dot product is 0, which is how a gate that starts
    as the identity needs it (`choices.GATE_INITS`).

    Products, sum and sigmoid are taken in float32: over 256 positions the sum leaves float16's range.

    Args:
        compatibility: "sum" or "mean" over the positions.
        scale: the largest value C can take.

    Raises:
        ValueError: `compatibility` is neither.
    """

    def __init__(self, compatibility="sum", scale=1.0, **kwargs):
        super().__init__(**kwargs)
        if compatibility not in ("sum", "mean"):
            raise ValueError(f"compatibility must be sum or mean, not {compatibility!r}")
        self.compatibility, self.scale = compatibility, scale

    def call(self, inputs):
        embedded_context, embedded_features = map(precision.to_float32, inputs)
        reduce = ops.sum if self.compatibility == "sum" else ops.mean
        products = reduce(embedded_context * embedded_features, axis=(1, 2), keepdims=True)
        return ops.cast(self.scale * ops.sigmoid(products), self.compute_dtype)


@keras.saving.register_keras_serializable("cdc_keras")
class UnitSigmoid(keras.layers.Layer):
    """sigmoid(z + bias) / sigmoid(bias): exactly 1 where z is 0, between 0 and `scale` = 1 + exp(-bias) elsewhere.

    Computed as 1 + 2 a t / (1 + t + a (1 - t)) with a = exp(-bias) and t = tanh(z / 2), so that no rounding stands
    between a gate that has not learnt yet and the identity.

    Args:
        bias: where on the sigmoid z = 0 lies; the larger, the closer the largest value is to 1.
    """

    def __init__(self, bias, **kwargs):
        super().__init__(**kwargs)
        self.bias, self.scale = bias, 1.0 + math.exp(-bias)

    def call(self, x):
        t, a = ops.tanh(precision.to_float32(x) / 2.0), math.exp(-self.bias)
        return ops.cast(1.0 + 2.0 * a * t / (1.0 + t + a * (1.0 - t)), self.compute_dtype)

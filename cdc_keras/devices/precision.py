"""In which precision networks compute, whether a run repeats to the bit, and what of that cannot be had.

Under mixed_bfloat16 and mixed_float16 convolutions and activations are of 16 bits. In float32 stay what 16 bits would
harm: variables, their gradients and the optimizers' state; batch norm and its statistics; means over positions or
channels; the products that C adds up (`layers.ChannelCompatibility`), which overflow float16; logits and
reconstructions; attention maps and everything else in a loss; and the running means of the metrics.
"""

import contextlib
import os
import pathlib

import keras

from cdc_keras.errors import UserError

DEFAULTS = "float32", "channels_last", 1e-7  # floatx, image_data_format, epsilon
CPUINFO = pathlib.Path("/proc/cpuinfo")
BFLOAT16_INSTRUCTIONS = {"avx512_bf16", "amx_bf16"}


@contextlib.contextmanager
def keras_defaults():
    """The context, or decorator, in which Keras has the settings it comes with, whatever keras.json or the caller says.

    A layer keeps those it was made with; the settings of the process are afterwards what they were before.
    """
    config = keras.config
    before = config.floatx(), config.image_data_format(), config.epsilon()
    _set(*DEFAULTS)
    try:
        yield
    finally:
        _set(*before)


def _set(floatx, data_format, epsilon):
    keras.config.set_floatx(floatx)
    keras.config.set_image_data_format(data_format)
    keras.config.set_epsilon(epsilon)


@contextlib.contextmanager
def policy(name):
    """The context in which layers that are made compute in the precision `name`, one of `choices.PRECISIONS`.

    A layer keeps the precision it was made with; the policy of the process is afterwards what it was before.
    """
    with keras_defaults():
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(name)
        try:
            yield
        finally:
            keras.config.set_dtype_policy(before)


def fastest():
    """Returns the precision that is expected to be fastest here, without loss scaling: "mixed_bfloat16" or "float32".

    bfloat16 it is on TPUs, on GPUs from compute capability 8 on, and on CPUs that have instructions for it, where
    TensorFlow computes by oneDNN. JAX is not known to use these instructions.
    """
    if keras.backend.backend() == "jax":
        import jax

        device = jax.devices()[0]
        fast = device.platform != "cpu" and float(getattr(device, "compute_capability", 8)) >= 8
    else:
        import tensorflow as tf

        if gpus := tf.config.list_physical_devices("GPU"):
            fast = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0)) >= (8, 0)
        else:
            fast = cpu_computes_bfloat16() or bool(tf.config.list_physical_devices("TPU"))
    return "mixed_bfloat16" if fast else "float32"


def cpu_computes_bfloat16():
    """Returns whether this CPU has instructions for bfloat16 and TensorFlow would use them."""
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0" or not CPUINFO.is_file():
        return False
    return not BFLOAT16_INSTRUCTIONS.isdisjoint(CPUINFO.read_text(encoding="utf-8").split())


def slower_than_float32(name):
    """Returns whether the precision `name` is known to be slower here than float32."""
    if keras.backend.backend() != "tensorflow" or name == "float32":
        return False
    import tensorflow as tf

    accelerators = [device for device in tf.config.list_physical_devices() if device.device_type != "CPU"]
    return not accelerators and not (name == "mixed_bfloat16" and cpu_computes_bfloat16())


def to_float32(x):
    """Returns a tensor in float32, or as it is if that is wider."""
    return keras.ops.cast(x, keras.backend.result_type(x.dtype, "float32"))


def prepare(config):
    """Makes this process compute as `config` says, before anything is allocated.

    Determinism is TensorFlow's for the whole process, and stays on.

    Args:
        config: a `RunConfig`.

    Raises:
        UserError: this backend cannot, and why.
    """
    jax = keras.backend.backend() == "jax"
    if jax and config.precision == "mixed_float16":
        raise UserError(
            "precision=mixed_float16 needs Keras' loss scaling, which skips steps in a way that JAX cannot compile "
            "into our step; take mixed_bfloat16, or set KERAS_BACKEND=tensorflow"
        )
    if config.deterministic and jax:
        _refuse_jax_accelerator()
    elif config.deterministic:
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
        tf.random.set_seed(config.seed)  # an operation without a seed of its own would be refused


def share_cores(config):
    """Gives every operation of an extractor's training half of the CPU's cores, and the rest to those beside it.

    Its operations are small and many do not wait for one another: with the two players' networks side by side a step on
    two cores takes 0.75 (batch 32) to 0.84 (batch 64) of the time that it takes with both cores in every operation. A
    classifier is one chain of larger operations, which such halves make slower, so it is left as it is; so are GPUs.

    Args:
        config: a `RunConfig`.

    Raises:
        RuntimeError: TensorFlow has started already; this is for the beginning of a program.
    """
    if keras.backend.backend() != "tensorflow" or config.classifies:
        return
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        tf.config.threading.set_intra_op_parallelism_threads(max(cores() // 2, 1))


def cores():
    """Returns the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _refuse_jax_accelerator():
    import jax

    if (platform := jax.default_backend()) != "cpu":
        raise UserError(
            f"deterministic cannot be promised under JAX on a {platform}, where XLA chooses and times its kernels "
            "anew; leave it out, or set JAX_PLATFORMS=cpu or KERAS_BACKEND=tensorflow"
        )

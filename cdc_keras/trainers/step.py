"""What differs between TensorFlow and JAX: taking gradients, and one training step as Keras' trainer wants it.

A `StepModel` says in backend-neutral code what happens to one batch (`update`) and how one is evaluated (`assess`),
and differentiates with `gradients`. Under TensorFlow a step of Keras' trainer is a batch. Under JAX it is a chunk of
batches, run by one `lax.scan` in one compiled call over a data set that lies on the device (`data.pipeline`).
"""

import contextlib

import keras
from keras import ops

from cdc_keras.data.pipeline import gather
from cdc_keras.devices import distribution
from cdc_keras.weights import STEPS

LOSS_SCALING = ("_loss_scale", "_finite_steps")  # how the keys of its state in a file end


@contextlib.contextmanager
def kept(variables):
    """Gives the variables back, after the block, the values they had before it: statistics of what is not inferred."""
    before = [ops.copy(v.value) for v in variables]
    yield
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)


class _Model(keras.Model):
    """A model whose weight files also hold what Keras leaves out: the state of its random draws and running means.

    Attributes:
        steps: variable, the training steps it has seen. The optimizers' `iterations` are fewer where loss scaling left
            steps out.
        resumes_in_mid_epoch: whether the coming `fit` goes on with the running means it finds, instead of at 0.
    """

    resumes_in_mid_epoch = False

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # "int" is int64 under TensorFlow, as int32 is not counted on a GPU, and int32 under JAX.
        self.steps = keras.Variable(
            "zeros", shape=(), dtype="int", trainable=False, aggregation="only_first_replica", name=STEPS
        )

    @property
    def steps_done(self):
        """The number of training steps the model has seen."""
        return int(self.steps.numpy())

    def players(self):
        """Returns {name: optimizer} of all that `update` moves."""
        return {"": self.optimizer}

    def skipped_steps(self):
        """Returns the number of steps that loss scaling left out, {"<player>_skipped_steps": float}; empty without."""
        return {
            f"{player}_skipped_steps".lstrip("_"): float(self.steps.numpy() - optimizer.iterations.numpy())
            for player, optimizer in self.players().items()
            if isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        }

    def counted_update(self, images, labels):
        """Returns what `update` returns, and counts the step."""
        logs = self.update(images, labels)
        self.steps.assign_add(1)
        return logs

    def reset_metrics(self):
        if not self.resumes_in_mid_epoch:
            super().reset_metrics()
        self.resumes_in_mid_epoch = False

    def _states(self):
        """Returns {key in the file: variable}."""
        random = [v for v in self.non_trainable_variables if v.path.endswith("seed_generator_state")]
        means = [v for v in self.metrics_variables if len(v.shape) == 0]  # the counts of an evaluation are none
        return {
            **{f"random_state_{i}": v for i, v in enumerate(random)},
            **{f"running_mean_{i}": v for i, v in enumerate(means)},
        }

    def save_own_variables(self, store):
        super().save_own_variables(store)
        for key, variable in self._states().items():
            store[key] = variable.numpy()

    def load_own_variables(self, store):
        states = self._states()
        for key, variable in states.items():
            variable.assign(store[key])
        # What was trained in float16 may be loaded to compute in float32, where no loss is scaled, and what drew at
        # random in training may be loaded to be scored alone.
        idle = [k for k in store.keys() if k.endswith(LOSS_SCALING) or k.startswith("random_state_")]
        own = [k for k in store.keys() if k not in states and k not in idle]
        super().load_own_variables({k: store[k] for k in own})


if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    def gradient_at(function, tensor):
        """Returns (outputs, gradient): `function(tensor) -> (loss, outputs)` run once, and d loss / d tensor."""
        tensor = tf.stop_gradient(tensor)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tensor)
            loss, outputs = function(tensor)
        return outputs, tape.gradient(loss, tensor)

    class StepModel(_Model):
        """A model trained by its own `update(images, labels) -> logs` and evaluated by `assess(images, labels)`."""

        def gradients(self, function, variables, optimizer):
            """Returns (outputs, gradients): `function() -> (loss, outputs)` run once, and d loss / d variable for each.

            Args:
                function: returns a scalar loss and any structure of tensors.
                variables: a list of `keras.Variable`s.
                optimizer: that the gradients are for; they are scaled as it expects them.
            """
            watched = [v.value for v in variables]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(watched)
                loss, outputs = function()
                # Each replica has the mean over its part of the batch.
                loss = optimizer.scale_loss(loss / distribution.replicas())
            return outputs, distribution.sum_over_replicas(tape.gradient(loss, watched))

        def train_step(self, data):
            return _as_reduced(self.counted_update(*data))

        def test_step(self, data):
            return _as_reduced(self.assess(*data))

        def _maybe_symbolic_build(self, iterator=None, data_batch=None):
            """Does nothing: a model here is built when it is made, and under several workers Keras fails in this."""

    def _as_reduced(logs):
        """Returns metrics as Keras averages them over workers: along an axis, though all have the same already."""
        return {k: ops.reshape(v, (1,)) for k, v in logs.items()} if distribution.workers() > 1 else logs

elif keras.backend.backend() == "jax":
    import jax

    def gradient_at(function, tensor):
        """Returns (outputs, gradient): `function(tensor) -> (loss, outputs)` run once, and d loss / d tensor."""
        (_, outputs), gradient = jax.value_and_grad(function, has_aux=True)(jax.lax.stop_gradient(tensor))
        return outputs, gradient

    class StepModel(_Model):
        """A model trained by its own `update(images, labels) -> logs` and evaluated by `assess(images, labels)`."""

        def gradients(self, function, variables, optimizer):
            """Returns (outputs, gradients): `function() -> (loss, outputs)` run once, and d loss / d variable for each.

            Args:
                function: returns a scalar loss and any structure of tensors.
                variables: a list of `keras.Variable`s.
                optimizer: that the gradients are for; none here scales them.
            """
            del optimizer
            state = self.variables + self.optimizer.variables
            before = [(v, v.value) for v in state]  # as they are at this point of the step, in the scope of `_scan`

            def of_values(values):
                scope = keras.StatelessScope(before + list(zip(variables, values, strict=True)))
                with scope:
                    loss, outputs = function()
                return loss, (outputs, [scope.get_current_value(v) for v in self.non_trainable_variables])

            values = [v.value for v in variables]
            (_, (outputs, moved)), gradients = jax.value_and_grad(of_values, has_aux=True)(values)
            for variable, value in zip(self.non_trainable_variables, moved, strict=True):
                variable.assign(value)  # batch-norm statistics and random seeds
            return outputs, gradients

        def train_step(self, state, chunk):
            groups = (
                self.trainable_variables,
                self.non_trainable_variables,
                self.optimizer.variables,
                self.metrics_variables,
            )
            return self._scan(self.counted_update, groups, state, chunk)

        def test_step(self, state, chunk):
            groups = (self.trainable_variables, self.non_trainable_variables, self.metrics_variables)
            return self._scan(self.assess, groups, state, chunk)

        def _scan(self, function, groups, state, chunk):
            """Returns (logs, state) after `function` on every batch of the chunk."""
            images, labels, plan = chunk

            def step(state, step_plan):
                pairs = []
                for variables, values in zip(groups, state, strict=True):
                    pairs += zip(variables, values, strict=True)
                with keras.StatelessScope(pairs) as scope:
                    logs = function(*gather(images, labels, step_plan))
                    return [[scope.get_current_value(v) for v in variables] for variables in groups], logs

            state = [list(values) for values in state]
            if len(plan["rows"]) == 1:  # XLA compiles convolutions far worse in a loop on CPU, even in one of length 1
                state, logs = step(state, {name: array[0] for name, array in plan.items()})
            else:
                state, logs = jax.lax.scan(step, state, plan)
                logs = {name: values[-1] for name, values in logs.items()}  # running means: the last says it all
            return logs, tuple(state)

else:
    raise ImportError(
        f"cdc_keras runs on the TensorFlow and JAX backends; KERAS_BACKEND is {keras.backend.backend()!r}"
    )

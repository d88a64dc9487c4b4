"""What differs between TensorFlow and JAX: taking gradients, and one training step as Keras' trainer wants it.

A `StepModel` says in backend-neutral code what happens to one batch (`update`) and how one is evaluated (`assess`),
and differentiates with `gradients`. Under TensorFlow a step of Keras' trainer is a batch. Under JAX it is a chunk of
batches, run by one `lax.scan` in one compiled call over a data set that lies on the device (`data.pipeline`).
"""

import keras

from cdc_keras.data.pipeline import gather

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    def gradient_at(function, tensor):
        """Returns (outputs, gradient): `function(tensor) -> (loss, outputs)` run once, and d loss / d tensor."""
        tensor = tf.stop_gradient(tensor)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tensor)
            loss, outputs = function(tensor)
        return outputs, tape.gradient(loss, tensor)

    class StepModel(keras.Model):
        """A model trained by its own `update(images, labels) -> logs` and evaluated by `assess(images, labels)`."""

        def gradients(self, function, variables):
            """Returns (outputs, gradients): `function() -> (loss, outputs)` run once, and d loss / d variable for each.

            Args:
                function: returns a scalar loss and any structure of tensors.
                variables: a list of `keras.Variable`s.
            """
            watched = [v.value for v in variables]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(watched)
                loss, outputs = function()
            return outputs, tape.gradient(loss, watched)

        def train_step(self, data):
            return self.update(*data)

        def test_step(self, data):
            return self.assess(*data)

elif keras.backend.backend() == "jax":
    import jax

    def gradient_at(function, tensor):
        """Returns (outputs, gradient): `function(tensor) -> (loss, outputs)` run once, and d loss / d tensor."""
        (_, outputs), gradient = jax.value_and_grad(function, has_aux=True)(jax.lax.stop_gradient(tensor))
        return outputs, gradient

    class StepModel(keras.Model):
        """A model trained by its own `update(images, labels) -> logs` and evaluated by `assess(images, labels)`."""

        def gradients(self, function, variables):
            """Returns (outputs, gradients): `function() -> (loss, outputs)` run once, and d loss / d variable for each.

            Args:
                function: returns a scalar loss and any structure of tensors.
                variables: a list of `keras.Variable`s.
            """
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
            return self._scan(self.update, groups, state, chunk)

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
                    function(*gather(images, labels, step_plan))
                    return [[scope.get_current_value(v) for v in variables] for variables in groups], None

            state, _ = jax.lax.scan(step, [list(values) for values in state], plan)
            with keras.StatelessScope(list(zip(self.metrics_variables, state[-1], strict=True))):
                logs = self.get_metrics_result()
            return logs, tuple(state)

else:
    raise ImportError(
        f"cdc_keras runs on the TensorFlow and JAX backends; KERAS_BACKEND is {keras.backend.backend()!r}"
    )

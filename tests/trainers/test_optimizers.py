import keras
import numpy as np
import pytest

from cdc_keras.trainers.optimizers import CoupledSGD, annealed, recipe, step_schedule


def torch_sgd(w, gradients, learning_rates, momentum, decay, nesterov):
    """SGD as PyTorch documents it: decay joins the gradient before the momentum, the learning rate comes after it."""
    velocity = np.zeros_like(w)
    for gradient, lr in zip(gradients, learning_rates, strict=True):
        gradient = gradient + decay * w
        velocity = momentum * velocity + gradient
        w = w - lr * (gradient + momentum * velocity if nesterov else velocity)
    return w


def run(optimizer, w, gradients):
    variable = keras.Variable(w)
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    return np.asarray(variable)


@pytest.mark.parametrize("name", ["wrn", "paper"])
def test_a_recipe_moves_weights_as_pytorch_does(name):
    rng = np.random.default_rng(0)
    w, gradients = rng.normal(size=7).astype("float32"), rng.normal(size=(50, 7)).astype("float32")
    settings = {"wrn": (0.9, 5e-4, True), "paper": (0.0, 0.0, False)}[name]
    expected = torch_sgd(w.astype("float64"), gradients, [0.1] * 50, *settings)
    # 50 float32 steps of size 0.1 to 1 round to a few 1e-6
    np.testing.assert_allclose(run(recipe(name, 0.1), w, gradients), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["wrn", "paper"])
def test_a_new_learning_rate_holds_for_what_the_momentum_has_gathered_too(name):
    rng = np.random.default_rng(0)
    w, gradients = rng.normal(size=7).astype("float32"), rng.normal(size=(50, 7)).astype("float32")
    schedule = step_schedule(0.1, epochs=5, steps_per_epoch=10, warmup_epochs=0.5)
    rates = [float(schedule(step)) for step in range(50)]
    assert len(set(rates)) == 5
    settings = {"wrn": (0.9, 5e-4, True), "paper": (0.0, 0.0, False)}[name]
    expected = torch_sgd(w.astype("float64"), gradients, rates, *settings)
    # as above; with the rate inside the momentum, as Keras' SGD has it, it is off by up to 2.6
    np.testing.assert_allclose(run(recipe(name, schedule), w, gradients), expected, rtol=1e-5, atol=1e-5)


def test_decay_inside_the_momentum_is_stronger_than_outside_it():
    w, gradients = np.ones(1, "float32"), np.zeros((200, 1), "float32")
    inside = run(CoupledSGD(0.1, l2=5e-4, momentum=0.9), w, gradients)
    outside = run(keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=5e-4), w, gradients)
    assert (1 - inside[0]) / (1 - outside[0]) > 5


def test_a_recipe_of_another_name_is_refused():
    with pytest.raises(ValueError, match="recipe is one of wrn, paper, not 'typo'"):
        recipe("typo", 0.1)


def test_the_optimizer_comes_back_from_its_config():
    optimizer = keras.optimizers.deserialize(keras.optimizers.serialize(recipe("wrn", 0.1)))
    assert optimizer.l2 == 5e-4 and optimizer.nesterov


def test_the_schedule_is_that_of_the_paper_at_200_epochs():
    schedule = step_schedule(0.1, epochs=200, steps_per_epoch=390, warmup_epochs=2)

    def at(epoch):
        return float(schedule(int(epoch * 390)))

    # Keras' schedule counts a boundary itself to the piece before it, hence the half epochs
    assert [at(e) for e in (0.5, 1.5, 2.5, 59.5)] == pytest.approx([0.001, 0.001, 0.1, 0.1])
    assert [at(e) for e in (60.5, 119.5, 120.5, 159.5, 160.5)] == pytest.approx([0.02, 0.02, 0.004, 0.004, 0.0008])


def test_a_warm_up_longer_than_the_first_piece_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        step_schedule(0.1, epochs=4, steps_per_epoch=10, warmup_epochs=2)


def test_a_rate_may_fall_to_zero_at_the_end_of_each_stage():
    schedule = annealed(0.2, lengths=[100, 50], share=0.4)
    found = [float(schedule(step)) for step in (0, 60, 70, 80, 99, 100, 129, 140, 150, 170)]
    assert found == pytest.approx([0.2, 0.2, 0.15, 0.1, 0.005, 0.2, 0.2, 0.1, 0.0, 0.0])
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert float(again(80)) == pytest.approx(0.1)
    alone = annealed(0.2, lengths=[100, 0], share=0.4)
    assert [float(alone(step)) for step in (0, 80, 100, 120)] == pytest.approx([0.2, 0.1, 0.0, 0.0])
    assert annealed(0.2, lengths=[100, 0], share=0.0) == 0.2


def test_a_gate_may_go_without_decay_and_at_a_rate_of_its_own():
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(2, 3, 1)).astype("float32"), rng.normal(size=(20, 3, 1)).astype("float32")
    images = keras.Input((3,))
    outputs = [keras.layers.Dense(1, use_bias=False, name=name)(images) for name in ("conv", "gate_conv")]
    variables = keras.Model(images, outputs).trainable_variables
    for variable, values in zip(variables, start, strict=True):
        variable.assign(values)
    optimizer = recipe("wrn", 0.1, gate_decays=False, gate_rate_factor=0.5)
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient)] * 2, variables)
    for variable, values, rate, decay in zip(variables, start, (0.1, 0.05), (5e-4, 0.0), strict=True):
        expected = torch_sgd(values.astype("float64"), gradients, [rate] * 20, 0.9, decay, True)
        np.testing.assert_allclose(np.asarray(variable), expected, rtol=1e-5, atol=1e-5)


def test_a_recipe_that_is_none_is_an_error():
    with pytest.raises(ValueError, match="recipe is one of wrn, paper, not 'typo'"):
        recipe("typo", 0.1)

"""The adversarial training step: who moves, by which gradient, and how far."""

import random

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

from cdc_keras.config import RunConfig
from cdc_keras.networks import autoencoder
from cdc_keras.runs import training
from cdc_keras.trainers.disentangler import Disentangler

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(-1, 1, (6, 32, 32, 3)).astype("float32")
LABELS = np.array([0, 1, 2, 3, 1, 2], "int32")
# Weights under which every term of the loss is as large as the others. At the paper's, lambda_fool is 0 in the first
# step and the repulsive hinge is not active, so half of the code would go untested.
LOUD = {"fool_weight": 1.0, "fool_ramp_steps": 2, "repulsive_weight": 1.0, "repulsive_delta": 10.0}


def build(seed=0, dropout=None, step=1, num_classes=4, **arguments):
    """A small compiled `Disentangler`, lambda_fool at `step` of a ramp of two."""
    keras.utils.set_random_seed(seed)
    compile_arguments = {k: arguments.pop(k) for k in ("clip_norm", "learning_rate") if k in arguments}
    model = Disentangler(32, num_classes, discriminator_width=8, **(LOUD | arguments))
    model.compile(**compile_arguments)
    if model.adversarial:
        model.steps.assign(step)
        for layer in model.discriminator.layers:
            if dropout is not None and isinstance(layer, keras.layers.Dropout):
                layer.rate = dropout
    return model


def values(variables):
    return [v.numpy() for v in variables]


def moved(variables, before):
    return [v.path for v, value in zip(variables, before, strict=True) if (v.numpy() != value).any()]


def recorded_gradients(optimizer, monkeypatch):
    """A list that receives the gradients given to `optimizer`, which moves nothing any more."""
    recorded = []
    monkeypatch.setattr(optimizer, "apply", lambda gradients, variables: recorded.extend(gradients))
    return recorded


def statistics(model):
    return [v for v in model.variables if "moving" in v.name]


def test_the_discriminators_step_moves_all_of_the_discriminator_and_nothing_else():
    model = build()
    own = model.discriminator.trainable_variables + statistics(model.discriminator)
    others = model.encoder.variables + model.decoder.variables
    own_before, others_before = values(own), values(others)
    model._update_discriminator(IMAGES, LABELS)
    assert len(moved(own, own_before)) == len(own)
    assert not moved(others, others_before)


def test_the_autoencoders_step_moves_all_of_the_autoencoder_and_nothing_else():
    model = build()
    own = model.autoencoder_variables + statistics(model.encoder) + statistics(model.decoder)
    own_before, others_before = values(own), values(model.discriminator.variables)
    model._update_autoencoder(IMAGES, LABELS)
    assert len(moved(own, own_before)) == len(own)
    assert not moved(model.discriminator.variables, others_before)


# Twelve classes: the condition is embedded, and the embedding needs its gradient too.
@pytest.mark.parametrize("num_classes", [4, 12])
def test_every_weight_of_each_player_gets_a_gradient(num_classes, monkeypatch):
    model = build(num_classes=num_classes)
    of_discriminator = recorded_gradients(model.player.discriminator, monkeypatch)
    of_autoencoder = recorded_gradients(model.player.autoencoder, monkeypatch)
    model.update(IMAGES, LABELS)
    for gradients, variables in (
        (of_discriminator, model.discriminator.trainable_variables),
        (of_autoencoder, model.autoencoder_variables),
    ):
        pairs = list(zip(variables, gradients, strict=True))
        assert not [v.path for v, gradient in pairs if gradient is None or not np.any(gradient)]


def full_autoencoder_loss(model, images, labels, lambda_fool):
    """The auto-encoder's loss (Eqs. 1 and 2 beside the MSE), written from the paper and differentiated through D."""
    condition = tf.one_hot(labels, model.num_classes)
    context = model.encoder(images, training=True)
    first = model.decoder([context, condition], training=True)
    statistics = [tf.identity(v.value) for v in model.decoder.non_trainable_variables]
    second = model.decoder([context, 1 - condition], training=True)
    for variable, value in zip(model.decoder.non_trainable_variables, statistics, strict=True):
        variable.assign(value)  # inference decodes under true conditions, and so follows their statistics
    loss = tf.reduce_mean((images - first) ** 2)
    distance = tf.sqrt(tf.reduce_mean((first - second) ** 2, axis=(1, 2, 3)))
    loss += model.settings.repulsive_weight * tf.reduce_mean(tf.nn.relu(model.settings.repulsive_delta - distance))
    probabilities = tf.nn.softmax(model.discriminator(context, training=False))
    return loss + lambda_fool * tf.reduce_mean(tf.gather(probabilities, labels, batch_dims=1))


def tape_gradients(function, variables):
    raw = [v.value for v in variables]
    with tf.GradientTape() as tape:
        loss = function()
    return [gradient.numpy() for gradient in tape.gradient(loss, raw)]


def assert_same_gradients(got, expected):
    # The terms are added in another order: float32 rounding, relative to the largest value of each gradient.
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * abs(b).max())


def test_the_fooling_gradient_is_that_of_lambda_times_the_loss_through_the_discriminator(monkeypatch):
    model, twin = build(fool_weight=100.0), build(fool_weight=100.0)
    recorded = recorded_gradients(model.player.autoencoder, monkeypatch)
    model._update_autoencoder(IMAGES, LABELS)

    def gradients(weight):
        return tape_gradients(lambda: full_autoencoder_loss(twin, IMAGES, LABELS, weight), twin.autoencoder_variables)

    assert_same_gradients(recorded, gradients(50.0))  # half of the ramp
    with pytest.raises(AssertionError):
        assert_same_gradients(recorded, gradients(0.0))


def test_the_reading_of_the_fooling_gradient_is_its_norm_at_t():
    model, twin = build(), build()
    context = twin.encoder(IMAGES, training=True)
    with tf.GradientTape() as tape:
        tape.watch(context)
        probabilities = tf.nn.softmax(twin.discriminator(context, training=False))
        loss = tf.reduce_mean(tf.gather(probabilities, LABELS, batch_dims=1))
    model._update_autoencoder(IMAGES, LABELS)
    expected = np.linalg.norm(tape.gradient(loss, context))
    np.testing.assert_allclose(model.trackers["fooling_gradient_norm"].result(), expected, rtol=1e-5)


def test_one_training_step_is_the_step_written_out_by_hand():
    # Without dropout, whose random numbers a second implementation cannot draw.
    model, twin = build(dropout=0.0), build(dropout=0.0)
    start = values(model.variables)
    model.update(IMAGES, LABELS)

    def discriminator_loss():
        context = twin.encoder(IMAGES, training=False)
        logits = twin.discriminator(context, training=True)
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS, logits))

    of_discriminator, of_autoencoder = twin.discriminator.trainable_variables, twin.autoencoder_variables
    gradients = tape_gradients(discriminator_loss, of_discriminator)
    reference.Adam(of_discriminator, 0).apply(gradients, of_discriminator)
    # Half of the ramp. The training pass of this loss also moves the encoder's and the decoder's statistics, D's not.
    gradients += tape_gradients(lambda: full_autoencoder_loss(twin, IMAGES, LABELS, 0.5), of_autoencoder)
    reference.Adam(of_autoencoder, 0).apply(gradients[len(of_discriminator) :], of_autoencoder)

    gradient_of = {v.path: gradient for v, gradient in zip(of_discriminator + of_autoencoder, gradients, strict=True)}
    assert len(gradient_of) == len(gradients)
    for got, expected, before in zip(model.variables, twin.variables, start, strict=True):
        error = abs(got.numpy() - expected.numpy())
        if got.path in gradient_of:
            # A step is about 1e-4 in every weight, however small its gradient: Adam divides by it. Where the gradient
            # is nearly 0 its rounding error is thus a step's; that is so for few weights, and they are left out.
            gradient = abs(gradient_of[got.path])
            solid = (gradient == 0) | (gradient > 1e-3 * gradient.max())
            assert solid.mean() > 0.9, got.path
            assert abs(got.numpy() - before).max() > 5e-5, got.path
            error = error[solid]
        assert error.max() < 1e-6, got.path


@pytest.mark.parametrize(("step", "share"), [(0, 0.0), (500, 0.5), (1000, 1.0), (1500, 1.0)])
def test_lambda_rises_linearly_and_stays(step, share):
    model = build(fool_weight=1e-4, fool_ramp_steps=1000, step=step)
    np.testing.assert_allclose(model.lambda_fool, share * 1e-4, rtol=1e-6)


def test_lambda_counts_the_steps_of_training():
    model = build(fool_weight=1.0, fool_ramp_steps=4, step=0)
    metrics = []
    for _ in range(3):
        model.reset_metrics()
        metrics.append(float(model.counted_update(IMAGES, LABELS)["lambda_fool"]))
    assert metrics == [0.0, 0.25, 0.5]


def test_each_players_gradient_is_clipped_by_its_own_global_norm():
    model = build(clip_norm=1e-3, dropout=0.0)  # far below what both have
    model.update(IMAGES, LABELS)
    for optimizer in (model.player.discriminator, model.player.autoencoder):
        # Adam's first moment after its first gradient is (1 - beta_1) times it.
        first = [v.numpy() for v in optimizer.variables if v.path.endswith("_momentum")]
        norm = 2 * np.sqrt(sum((m.astype("float64") ** 2).sum() for m in first))
        np.testing.assert_allclose(norm, 1e-3, rtol=1e-4)


def test_small_gradients_are_not_clipped(monkeypatch):
    model, twin = build(clip_norm=1e9), build(clip_norm=1e9)
    recorded = recorded_gradients(twin.player.autoencoder, monkeypatch)
    model._update_autoencoder(IMAGES, LABELS)
    twin._update_autoencoder(IMAGES, LABELS)
    first = [v.numpy() for v in model.player.autoencoder.variables if v.path.endswith("_momentum")]
    assert_same_gradients([2 * m for m in first], [g.numpy() for g in recorded])


def test_the_two_optimizers_share_all_weights_between_them_and_none_twice():
    model = build()
    counts = [
        sum(v.path.endswith("_momentum") for v in optimizer.variables)
        for optimizer in (model.player.discriminator, model.player.autoencoder)
    ]
    assert counts == [len(model.discriminator.trainable_variables), len(model.autoencoder_variables)]
    assert sum(counts) == len(model.trainable_variables)


def test_the_accuracy_reading_is_the_share_of_highest_logits_on_the_label():
    model = build(dropout=0.0)
    logits = model.discriminator(model.encoder(IMAGES, training=False), training=True).numpy()
    labels = logits.argmax(axis=1).astype("int32")
    labels[:2] = (labels[:2] + 1) % 4
    assert float(model.update(IMAGES, labels)["discriminator_accuracy"]) == pytest.approx(4 / 6)


def test_readings_are_means_over_examples_and_not_over_batches():
    model = build()
    whole = model.evaluate(IMAGES, LABELS, batch_size=6, verbose=0, return_dict=True)
    parts = model.evaluate(IMAGES, LABELS, batch_size=4, verbose=0, return_dict=True)
    assert parts["reconstruction_loss"] == pytest.approx(whole["reconstruction_loss"], rel=1e-6)


@pytest.mark.parametrize("fool_loss", ["softmax", "wrong_class_ce", "uniform_ce"])
def test_assessing_changes_nothing_but_the_readings(fool_loss):
    model = build(fool_loss=fool_loss)
    state = model.variables + model.optimizer.variables
    before = values(state)
    model.assess(IMAGES, LABELS)
    assert not moved(state, before)


def test_assessing_reports_only_what_it_measures():
    assert set(build().evaluate(IMAGES, LABELS, verbose=0, return_dict=True)) <= {
        "reconstruction_loss",
        "discriminator_loss",
        "discriminator_accuracy",
        "fooling_loss",
    }


def test_a_gm_has_no_condition_and_no_discriminator():
    model = build(context="gm")
    assert model.discriminator is None and len(model.decoder.inputs) == 1
    assert set(model.update(IMAGES, LABELS)) == {"reconstruction_loss"}
    np.testing.assert_array_equal(model(IMAGES, LABELS), model(IMAGES, (LABELS + 1) % 4))


def test_a_cgm_has_the_condition_and_no_discriminator():
    model = build(context="cgm")
    assert model.discriminator is None and len(model.decoder.inputs) == 2
    assert set(model.update(IMAGES, LABELS)) == {"reconstruction_loss", "repulsive_loss", "repulsive_active"}
    assert np.any(model(IMAGES, LABELS) != model(IMAGES, (LABELS + 1) % 4))


def test_without_repulsive_weight_the_counterfactual_is_not_even_computed():
    assert not {"repulsive_loss", "repulsive_active"} & set(build(repulsive_weight=0.0).trackers)


@pytest.mark.parametrize(
    ("image_size", "context_size", "shape"),
    [(32, None, (8, 8, 64)), (128, 8, (8, 8, 64)), (128, 16, (16, 16, 64)), (224, None, (28, 28, 64))],
)
def test_a_preset_has_the_t_of_the_appendix(image_size, context_size, shape):
    encoder = autoencoder.encoder(image_size, context_size=context_size)
    decoder = autoencoder.decoder(image_size, shape, num_classes=10, context_size=context_size)
    discriminator = autoencoder.discriminator(shape, num_classes=10)
    assert encoder.output_shape == (None, *shape)
    assert decoder.output_shape == (None, image_size, image_size, 3)
    assert discriminator.get_layer("d_flatten").input.shape[1:3] == (1, 1)


@pytest.mark.parametrize(("skip", "channels"), [("add", 64), ("none", 64)])
def test_the_skip_decides_the_channels_of_t(skip, channels):
    assert autoencoder.encoder(32, skip=skip).output_shape == (None, 8, 8, channels)


def test_the_decoder_sees_the_encoder_through_t_alone():
    model = build()
    assert [tuple(tensor.shape[1:]) for tensor in model.decoder.inputs] == [(8, 8, 64), (4,)]
    context = model.encoder(IMAGES)
    np.testing.assert_array_equal(model(IMAGES, LABELS), model.decode(context, model.condition(LABELS)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 64}, "presets for 32 px with T at 8x8, .*got 64 px with T at None"),
        ({"image_size": 128, "context_size": 28}, "128 px with T at 8x8, 128 px with T at 16x16.*got 128 px .* at 28"),
        ({"image_size": 32, "context": "dm"}, "cdcgm, cgm, gm, not 'dm'"),
        ({"image_size": 32, "fool_loss": "hinge"}, "fool_loss must be one of .*not 'hinge'"),
        ({"image_size": 32, "skip": "mul"}, "skip must be one of add, none, not 'mul'"),
    ],
)
def test_a_wrong_argument_is_an_error_that_names_the_right_ones(arguments, message):
    with pytest.raises(ValueError, match=message):
        Disentangler(num_classes=4, **arguments)


def test_each_of_several_discriminators_gets_the_gradient_it_would_get_alone(monkeypatch):
    model, twin = build(discriminators=2, dropout=0.0), build(discriminators=2, dropout=0.0)
    recorded = recorded_gradients(model.player.discriminator, monkeypatch)
    model._update_discriminator(IMAGES, LABELS)
    context = twin.encoder(IMAGES, training=False)
    for member, prefix in enumerate(autoencoder.prefixes(2)):
        own = [v for v in twin.discriminator.trainable_variables if v.path.split("/")[-2].startswith(prefix)]

        def loss(member=member):
            logits = twin.discriminate(context, training=True)[member]
            return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS, logits))

        gradients = zip(model.discriminator.trainable_variables, recorded, strict=True)
        got = [g.numpy() for v, g in gradients if v.path.split("/")[-2].startswith(prefix)]
        assert_same_gradients(got, tape_gradients(loss, own))


def test_the_fooling_loss_of_several_discriminators_is_their_mean():
    model = build(discriminators=3)
    context = model.encoder(IMAGES, training=False)
    value, _ = model._fooling_gradient(context, LABELS)
    right = [tf.gather(tf.nn.softmax(logits), LABELS, batch_dims=1) for logits in model.discriminate(context)]
    assert len({float(tf.reduce_mean(x)) for x in right}) == 3
    np.testing.assert_allclose(value, np.mean(right), rtol=1e-5)


def test_the_discriminator_is_updated_as_often_as_asked_for_each_of_the_autoencoder():
    model = build(discriminator_steps=3)
    model.update(IMAGES, LABELS)
    assert int(model.player.discriminator.iterations.numpy()) == 3
    assert int(model.player.autoencoder.iterations.numpy()) == 1


def test_a_renewed_discriminator_is_drawn_from_seed_and_epoch_and_the_others_stay():
    model, twin = build(discriminators=2), build(discriminators=2, seed=1)
    model.update(IMAGES, LABELS)
    first, second = ([v for v in model.discriminator.variables if f"{p}" in v.path] for p in autoencoder.prefixes(2))
    others = second + model.autoencoder_variables + model.optimizer.variables
    before, others_before, state = values(first), values(others), random.getstate()
    model.renew_discriminator(0, epoch=4)
    twin.renew_discriminator(0, epoch=4)
    same = [v for v in twin.discriminator.variables if autoencoder.prefixes(2)[0] in v.path]
    assert not moved(others, others_before)
    assert len(moved([v for v in first if "seed" not in v.path], before)) > 0.9 * len(first)  # a bias starts at 0 again
    assert random.getstate() == state
    for a, b in zip(first, same, strict=True):
        if "seed" not in a.path:
            np.testing.assert_array_equal(a.numpy(), b.numpy())
    model.renew_discriminator(0, epoch=5)
    assert (first[0].numpy() != same[0].numpy()).any()


def test_the_discriminators_are_renewed_in_turn(monkeypatch):
    model, renewed = build(discriminators=2), []
    monkeypatch.setattr(model, "renew_discriminator", lambda member, epoch: renewed.append((member, epoch)))
    config = RunConfig(discriminators=2, discriminator_reset_epochs=2)
    for epoch in range(8):
        training._renew(model, config, epoch)
    assert renewed == [(0, 2), (1, 4), (0, 6)]
    training._renew(model, RunConfig(), 4)
    assert len(renewed) == 3


@pytest.mark.parametrize(("skip", "channels"), [("add", 16), ("none", 16)])
def test_the_context_is_as_wide_as_asked(skip, channels):
    model = build(context_channels=16, skip=skip)
    assert model.encoder.output_shape == (None, 8, 8, channels)
    assert model.decoder.input_shape[0] == model.discriminator.input_shape == (None, 8, 8, channels)

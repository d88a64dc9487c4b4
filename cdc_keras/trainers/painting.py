"""Training images that a decoder paints anew under another category, so that nothing but the object tells it."""

from keras import ops

from cdc_keras.networks import autoencoder
from cdc_keras.trainers.losses import draw_wrong_labels


def painter(encoder, decoder, *, share, control=False):
    """Returns a function (images, labels, draws) -> (images, labels) that paints a share of a batch anew.

    The first images of a batch become G2(T, g(y')), labelled y', with another category y' for each. They are the same
    number in every batch, and a random part of it where batches are in random order. T is without its noise.

    Args:
        encoder: functional model, images (B, S, S, 3) in [-1, 1] -> T.
        decoder: its `autoencoder.decoder`, which is told the category.
        share: of every batch, in [0, 1], to the percent.
        control: paint them under their own category, which tells what the painting alone does.
    """
    encoder, percent, num_classes = autoencoder.mean_encoder(encoder), round(100 * share), decoder.inputs[1].shape[-1]

    def paint(images, labels, draws):
        count = ops.shape(images)[0] * percent // 100
        categories = labels[:count] if control else draw_wrong_labels(labels[:count], num_classes, draws)
        context = encoder(images[:count], training=False)
        painted = decoder([context, ops.one_hot(categories, num_classes)], training=False)
        joined = ops.concatenate([ops.cast(painted, images.dtype), images[count:]])
        return joined, ops.concatenate([categories, labels[count:]])

    return paint

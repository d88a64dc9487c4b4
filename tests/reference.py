"""The gate in inference mode (Sec. 3, Eqs. 3-5) and Adam once more, in NumPy and float64, from the equations alone."""

import numpy as np

BN_EPSILON = 1e-5


def conv(x, kernel):
    """Convolution of (B, H, W, C) with (k, k, C, filters), k odd, padded to the same size, pixel by pixel."""
    pad = kernel.shape[0] // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    out = np.empty((*x.shape[:3], kernel.shape[-1]))
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            patch = padded[:, i : i + kernel.shape[0], j : j + kernel.shape[1]]
            out[:, i, j] = np.tensordot(patch, kernel, axes=3)
    return out


def batch_norm(x, weights):
    normalised = (x - weights["moving_mean"]) / np.sqrt(weights["moving_variance"] + BN_EPSILON)
    return normalised * weights["gamma"] + weights["beta"]


def relu(x):
    return np.where(x > 0, x, 0.0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def attention(context, weights, of=sigmoid):
    """M of T (B, h, w, C): L1 of [mean_c T; max_c T] (Eq. 3).

    Args:
        weights: {layer name: {variable name: array}}, as `by_layer` returns.
        of: what makes M of the last map of L1.
    """
    x = relu(conv_bn(pool(context), "gate_l1_conv1", weights))
    return of(conv_bn(x, "gate_l1_conv2", weights))


def embedded_context(context, weights):
    """Me of T: L2 of [mean_c T; max_c T]."""
    x = pool(context)
    for i in (1, 2, 3):
        x = relu(conv_bn(x, f"gate_l2_conv{i}", weights))
    return conv(x, weights["gate_l2_conv4"]["kernel"])


def pool(context):
    return np.stack([context.mean(axis=3), context.max(axis=3)], axis=3)


def conv_bn(x, name, weights):
    return batch_norm(conv(x, weights[name]["kernel"]), weights[f"{name}_bn"])


def at_size(x, size):
    """(B, h, w, C) repeated to the nearest, or averaged over blocks, to (B, size, size, C)."""
    if size >= x.shape[1]:
        return np.repeat(np.repeat(x, size // x.shape[1], axis=1), size // x.shape[2], axis=2)
    block = x.shape[1] // size
    return x.reshape(x.shape[0], size, block, size, block, x.shape[3]).mean(axis=(2, 4))


def bottleneck(x, name, weights):
    """R or L3 of F: BN-ReLU-1x1, BN-ReLU-3x3, BN-ReLU-1x1."""
    for i in (1, 2, 3):
        x = conv(relu(batch_norm(x, weights[f"{name}_conv{i}_bn"])), weights[f"{name}_conv{i}"]["kernel"])
    return x


def compatibility(features, embedded, name, weights, reduce=np.sum):
    """C (B, C) of F and Me, both at F's resolution: sigmoid of the products summed over all positions (Eq. 4)."""
    return sigmoid(reduce(embedded * bottleneck(features, f"{name}_l3", weights), axis=(1, 2)))


def gate(
    features,
    context,
    name,
    weights,
    *,
    residual=True,
    attend=True,
    compatible=True,
    scale=1.0,
    reduce=np.sum,
    of=sigmoid,
):
    """R(F) + F * M * C (Eq. 5 before its ReLU), or with parts left out; `name` is the prefix of the site's layers."""
    features, context = features.astype("float64"), context.astype("float64")
    size, out = features.shape[1], features
    if attend:
        out = out * at_size(attention(context, weights, of), size)
    if attend and compatible:
        embedded = at_size(embedded_context(context, weights), size)
        out = out * scale * compatibility(features, embedded, name, weights, reduce)[:, None, None, :]
    if residual:
        out = out + bottleneck(features, f"{name}_r", weights)
    return out


def by_layer(model):
    """{layer name: {variable name: float64 array}} of the layers of `model`."""
    return {layer.name: {w.name: w.numpy().astype("float64") for w in layer.weights} for layer in model.layers}


def randomise(variables, seed=0):
    """Gives every variable a value that no default hides: kernels of the usual size, batch norms off 0 and 1."""
    rng = np.random.default_rng(seed)
    for v in variables:
        if v.name in ("gamma", "moving_variance"):
            v.assign(rng.uniform(0.5, 1.5, v.shape))
        elif v.name in ("beta", "moving_mean", "bias"):
            v.assign(rng.normal(0, 0.3, v.shape))
        else:
            v.assign(rng.normal(0, np.sqrt(2 / np.prod(v.shape[:-1])), v.shape))


class Adam:
    """Kingma & Ba 2015 in float64, the gradients' global norm clipped before."""

    def __init__(self, variables, step):
        self.m = [np.zeros(v.shape) for v in variables]
        self.v = [np.zeros(v.shape) for v in variables]
        self.step = step

    def apply(self, gradients, variables, lr=2e-4, beta_1=0.5, beta_2=0.999, clip=5.0):
        self.step += 1
        gradients = [gradient.astype("float64") for gradient in gradients]
        norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
        scale = min(1.0, clip / norm)
        for i, (gradient, variable) in enumerate(zip(gradients, variables, strict=True)):
            self.m[i] = beta_1 * self.m[i] + (1 - beta_1) * scale * gradient
            self.v[i] = beta_2 * self.v[i] + (1 - beta_2) * (scale * gradient) ** 2
            rate = lr * np.sqrt(1 - beta_2**self.step) / (1 - beta_1**self.step)
            variable.assign(variable.numpy() - rate * self.m[i] / (np.sqrt(self.v[i]) + 1e-8))

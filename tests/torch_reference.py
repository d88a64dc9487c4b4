"""The classifiers, attention transfer and SGD once more, in PyTorch and float64, from the papers alone.

Only `torch.nn.functional` and `torch.optim`; of `cdc_keras` the names of the layers, to find the weights by. Images are
(B, 3, S, S) here, kernels (filters, channels, k, k).
"""

import torch
import torch.nn.functional as F

BASIC = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
BOTTLENECK = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class Network:
    """A classifier in inference mode.

    Args:
        weights: {layer name: {variable name: array}}, kernels as TensorFlow has them.
        block_attention: "none", "se" or "cbam".
    """

    def __init__(self, weights, block_attention="none"):
        self.weights = {
            layer: {name: torch.tensor(value, dtype=torch.float64) for name, value in variables.items()}
            for layer, variables in weights.items()
        }
        self.block_attention = block_attention

    def conv(self, x, name, stride=1):
        weights = self.weights[name]
        kernel = weights["kernel"].permute(3, 2, 0, 1)
        return F.conv2d(x, kernel, weights.get("bias"), stride, padding=(kernel.shape[-1] - 1) // 2)

    def bn(self, x, name):
        w = self.weights[name]
        return F.batch_norm(x, w["moving_mean"], w["moving_variance"], w["gamma"], w["beta"], training=False, eps=1e-5)

    def conv_bn(self, x, name, stride=1):
        return self.bn(self.conv(x, name, stride), f"{name}_bn")

    def dense(self, x, name):
        return F.linear(x, self.weights[name]["kernel"].T, self.weights[name]["bias"])

    def classify(self, x):
        return self.dense(F.adaptive_avg_pool2d(x, 1).flatten(1), "logits")

    def attend(self, x, block):
        return {"none": lambda x, _: x, "se": self.se, "cbam": self.cbam}[self.block_attention](x, block)

    def se(self, x, block):
        """Hu et al. 2018, Fig. 2."""
        hidden = F.relu(self.dense(F.adaptive_avg_pool2d(x, 1).flatten(1), f"{block}_se_dense1"))
        return x * torch.sigmoid(self.dense(hidden, f"{block}_se_dense2"))[:, :, None, None]

    def cbam(self, x, block):
        """Woo et al. 2018, Fig. 2, as in the authors' code: the maximum is the first of the two maps."""
        name = f"{block}_cbam"
        pooled = (F.adaptive_avg_pool2d(x, 1).flatten(1), F.adaptive_max_pool2d(x, 1).flatten(1))
        branches = [
            self.dense(F.relu(self.dense(v, f"{name}_channel_dense1")), f"{name}_channel_dense2") for v in pooled
        ]
        x = x * torch.sigmoid(branches[0] + branches[1])[:, :, None, None]
        maps = torch.stack([torch.amax(x, 1), torch.mean(x, 1)], 1)
        return x * torch.sigmoid(self.bn(self.conv(maps, f"{name}_spatial_conv"), f"{name}_spatial_bn"))

    def vgg(self, x, depth):
        """Simonyan & Zisserman 2014, Table 1, B and D, with batch norm."""
        for block in range(1, 6):
            convs = 3 if depth == 16 and block >= 3 else 2
            for i in range(1, convs + 1):
                x = self.conv_bn(x, f"block{block}_conv{i}")
                x = F.relu(self.attend(x, f"block{block}") if i == convs else x)
            x = F.max_pool2d(x, 2)
        return self.classify(x)

    def cifar_resnet(self, x, depth):
        """He et al. 2015a, Sec. 4.2, with the shortcuts of option A."""
        x = F.relu(self.conv_bn(x, "stem"))
        for stage, width in enumerate((16, 32, 64), 1):
            for block in range(1, (depth - 2) // 6 + 1):
                name, stride = f"stage{stage}_block{block}", 2 if stage > 1 and block == 1 else 1
                y = F.relu(self.conv_bn(x, f"{name}_conv1", stride))
                y = self.attend(self.conv_bn(y, f"{name}_conv2"), name)
                shortcut = F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, width - x.shape[1]))
                x = F.relu(shortcut + y)
        return self.classify(x)

    def imagenet_resnet(self, x, depth, small_stem):
        """He et al. 2015a, Table 1, with the shortcuts of option B; a bottleneck's stride is in its first 1x1."""
        if small_stem:
            x = F.relu(self.conv_bn(x, "stem"))
        else:
            x = F.max_pool2d(F.relu(self.conv_bn(x, "stem", 2)), 3, stride=2, padding=1)
        convs = 3 if depth in BOTTLENECK else 2
        for stage, blocks in enumerate({**BASIC, **BOTTLENECK}[depth], 1):
            for block in range(1, blocks + 1):
                name, stride = f"stage{stage}_block{block}", 2 if stage > 1 and block == 1 else 1
                y = F.relu(self.conv_bn(x, f"{name}_conv1", stride))
                for i in range(2, convs):
                    y = F.relu(self.conv_bn(y, f"{name}_conv{i}"))
                y = self.attend(self.conv_bn(y, f"{name}_conv{convs}"), name)
                changes = y.shape != x.shape
                x = F.relu((self.conv_bn(x, f"{name}_shortcut", stride) if changes else x) + y)
        return self.classify(x)

    def before_activation(self, x, blocks, convs, stem_activated):
        """He et al. 2016, Fig. 1b; where the shape changes, batch norm and ReLU are common to both paths.

        With `stem_activated` they are in the first block too (He et al. 2016, "Implementation Details").
        """
        x = self.conv(x, "stem")
        for stage in (1, 2, 3):
            for block in range(1, blocks + 1):
                name, stride = f"stage{stage}_block{block}", 2 if stage > 1 and block == 1 else 1
                activated = F.relu(self.bn(x, f"{name}_conv1_bn"))
                y = self.conv(activated, f"{name}_conv1", stride)
                for i in range(2, convs + 1):
                    y = self.conv(F.relu(self.bn(y, f"{name}_conv{i}_bn")), f"{name}_conv{i}")
                y = self.attend(y, name)
                shortcut = activated if stem_activated and stage == block == 1 else x
                x = (self.conv(activated, f"{name}_shortcut", stride) if y.shape != x.shape else shortcut) + y
        return self.classify(F.relu(self.bn(x, "final_bn")))


def logits(name, images, weights, block_attention="none", small_stem=True):
    """Returns the logits (B, classes) of the classifier `name`, float64.

    Args:
        name: as for `networks.build`.
        images: array (B, S, S, 3).
        weights, block_attention: as for `Network`.
        small_stem: whether an ImageNet ResNet starts with a 3x3 convolution at full size.
    """
    network = Network(weights, block_attention)
    x = torch.tensor(images, dtype=torch.float64).permute(0, 3, 1, 2)
    family = name.rstrip("0123456789_")
    depth, *widening = map(int, name.removeprefix(family).split("_"))
    if family == "vgg":
        y = network.vgg(x, depth)
    elif family == "preresnet":
        y = network.before_activation(x, *{110: (18, 2), 164: (18, 3)}[depth], True)
    elif family == "wrn":
        y = network.before_activation(x, (depth - 4) // 6, 2, False)
    elif depth in BASIC or depth in BOTTLENECK:
        y = network.imagenet_resnet(x, depth, small_stem)
    else:
        y = network.cifar_resnet(x, depth)
    return y.numpy()


def transfer(students, teachers):
    """Returns (loss, gradients): attention transfer as in the authors' code (Zagoruyko & Komodakis 2017), weight 1000.

    Args:
        students, teachers: lists of arrays (B, H, W, C), paired.
    """

    def at(x):
        return F.normalize(x.pow(2).mean(3).flatten(1))

    students = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in students]
    teachers = [torch.tensor(x, dtype=torch.float64) for x in teachers]
    loss = 1000 * sum((at(x) - at(y)).pow(2).mean() for x, y in zip(students, teachers, strict=True))
    loss.backward()
    return loss.item(), [x.grad.numpy() for x in students]


def sgd(w, gradients, learning_rates):
    """Returns the positions after each step of the recipe of wide residual networks."""
    w = torch.nn.Parameter(torch.tensor(w, dtype=torch.float64))
    optimizer = torch.optim.SGD([w], lr=1.0, momentum=0.9, nesterov=True, weight_decay=5e-4)
    positions = []
    for gradient, learning_rate in zip(gradients, learning_rates, strict=True):
        optimizer.param_groups[0]["lr"] = learning_rate
        w.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        positions.append(w.detach().clone().numpy())
    return positions

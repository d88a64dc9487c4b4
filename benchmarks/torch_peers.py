"""The training steps of `training_step.py` in PyTorch: networks, input, both loops, plain or as fast as a user can.

The path of a module, "_" for ".", is the name of our layer, by which a test hands over the weights. PyTorch's own
defaults stand wherever ours say the same; images are (B, 3, H, W).
"""

import collections
import contextlib
import dataclasses

import torch
import torch.nn.functional as F
from torch import nn

VGG_BLOCKS = {13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3)}
VGG_WIDTHS = (64, 128, 256, 512, 512)
RESNET_WIDTHS = (16, 32, 64)
CONTEXT_CHANNELS = 64
EMBEDDED_CONDITION = 10


def conv(inputs, filters, kernel, stride=1, bias=False):
    return nn.Conv2d(inputs, filters, kernel, stride, padding=(kernel - 1) // 2, bias=bias)


def transposed_conv(inputs, filters, kernel, stride, bias=False):
    return nn.ConvTranspose2d(inputs, filters, kernel, stride, padding=1, bias=bias)


def head(features, classes):
    """Returns the layers that end every classifier."""
    return {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "logits": nn.Linear(features, classes)}


def sequential(layers):
    return nn.Sequential(collections.OrderedDict(layers))


def vgg(depth, classes, width_divisor=1):
    """Returns VGG with batch norm and one dense layer."""
    layers, inputs = {}, 3
    for block, (convs, width) in enumerate(zip(VGG_BLOCKS[depth], VGG_WIDTHS, strict=True), 1):
        for i in range(1, convs + 1):
            name = f"block{block}_conv{i}"
            layers[name] = conv(inputs, width // width_divisor, 3, bias=True)
            layers[f"{name}_bn"] = nn.BatchNorm2d(width // width_divisor)
            layers[f"{name}_act"] = nn.ReLU(inplace=True)
            inputs = width // width_divisor
        layers[f"block{block}_pool"] = nn.MaxPool2d(2)
    return sequential(layers | head(inputs, classes))


class BasicBlock(nn.Module):
    """Two convolutions and the shortcut of option A (He et al. 2015a)."""

    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1, self.conv1_bn = conv(inputs, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.conv2_bn = conv(width, width, 3), nn.BatchNorm2d(width)
        self.stride, self.new_channels = stride, width - inputs

    def forward(self, x):
        y = F.relu(self.conv1_bn(self.conv1(x)))
        y = self.conv2_bn(self.conv2(y))
        if self.new_channels:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))
        return F.relu(x + y)


class WideBlock(nn.Module):
    """Batch norm and ReLU before each of two convolutions; a 1x1 convolution as shortcut where the shape changes."""

    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1_bn, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, width, 3, stride)
        self.conv2_bn, self.conv2 = nn.BatchNorm2d(width), conv(width, width, 3)
        self.shortcut = conv(inputs, width, 1, stride) if stride != 1 or inputs != width else None

    def forward(self, x):
        activated = F.relu(self.conv1_bn(x))
        y = self.conv2(F.relu(self.conv2_bn(self.conv1(activated))))
        return (x if self.shortcut is None else self.shortcut(activated)) + y


def stages(block, blocks, widths):
    """Returns the blocks of three stages by name, each stage but the first halving the size."""
    layers, inputs = {}, RESNET_WIDTHS[0]
    for stage, width in enumerate(widths, 1):
        for i in range(1, blocks + 1):
            layers[f"stage{stage}_block{i}"] = block(inputs, width, 2 if stage > 1 and i == 1 else 1)
            inputs = width
    return layers


def cifar_resnet(depth, classes):
    """Returns the ResNet for small images of depth 6n + 2."""
    stem = {"stem": conv(3, RESNET_WIDTHS[0], 3), "stem_bn": nn.BatchNorm2d(RESNET_WIDTHS[0]), "stem_act": nn.ReLU()}
    blocks = stages(BasicBlock, (depth - 2) // 6, RESNET_WIDTHS)
    return sequential(stem | blocks | head(RESNET_WIDTHS[-1], classes))


def wide_resnet(depth, widening, classes):
    """Returns WRN-`depth`-`widening`."""
    widths = [widening * width for width in RESNET_WIDTHS]
    blocks = stages(WideBlock, (depth - 4) // 6, widths)
    end = {"final_bn": nn.BatchNorm2d(widths[-1]), "final_act": nn.ReLU()}
    return sequential({"stem": conv(3, RESNET_WIDTHS[0], 3)} | blocks | end | head(widths[-1], classes))


def network(name, classes):
    """Returns the classifier that `cdc_keras.networks` calls `name`."""
    family = name.rstrip("0123456789_").removesuffix("_slim").rstrip("0123456789")
    depth, *widening = (int(number) for number in name.removeprefix(family).removesuffix("_slim").split("_"))
    if family == "vgg":
        return vgg(depth, classes, 4 if name.endswith("_slim") else 1)
    return wide_resnet(depth, *widening, classes) if family == "wrn" else cifar_resnet(depth, classes)


class Encoder(nn.Module):
    """E1, E2 and G1 for 32 px: T = E1 + G1(E2(E1)), (B, 64, 8, 8)."""

    def __init__(self):
        super().__init__()
        self.e1 = self.groups((conv, 3, 32, 4, 2), (conv, 32, 32, 3, 1), (conv, 32, 64, 4, 2), (conv, 64, 64, 3, 1))
        self.e2 = self.groups(*[(conv, CONTEXT_CHANNELS, CONTEXT_CHANNELS, 4, 2)] * 2)
        self.g1 = self.groups(*[(transposed_conv, CONTEXT_CHANNELS, CONTEXT_CHANNELS, 4, 2)] * 2)

    @staticmethod
    def groups(*specifications):
        layers = {}
        for i, (kind, inputs, filters, kernel, stride) in enumerate(specifications, 1):
            layers[f"conv{i}"] = kind(inputs, filters, kernel, stride)
            layers[f"conv{i}_bn"] = nn.BatchNorm2d(filters)
            layers[f"conv{i}_act"] = nn.ReLU(inplace=True)
        return sequential(layers)

    def forward(self, images):
        e1 = self.e1(images)
        return e1 + self.g1(self.e2(e1))


class Decoder(nn.Module):
    """G2: T and the condition, which enters every layer as constant channels, to images (B, 3, 32, 32)."""

    def __init__(self, classes):
        super().__init__()
        planes = min(classes, EMBEDDED_CONDITION)
        self.condition = None
        if classes > EMBEDDED_CONDITION:
            embedding = {"dense1": nn.Linear(classes, planes), "act": nn.ReLU(), "dense2": nn.Linear(planes, planes)}
            self.condition = sequential(embedding)
        self.g2 = nn.ModuleDict(
            {
                "conv1": conv(64 + planes, 64, 3),
                "conv2": transposed_conv(64 + planes, 32, 4, 2),
                "conv3": conv(32 + planes, 32, 3),
                "conv4": transposed_conv(32 + planes, 3, 4, 2, bias=True),
            }
        )
        self.g2.update({f"conv{i}_bn": nn.BatchNorm2d(width) for i, width in ((1, 64), (2, 32), (3, 32))})

    def forward(self, x, condition):
        if self.condition is not None:
            condition = self.condition(condition)
        for i in (1, 2, 3, 4):
            planes = condition[:, :, None, None].expand(-1, -1, *x.shape[2:])
            x = self.g2[f"conv{i}"](torch.cat([x, planes], dim=1))
            if i < 4:
                x = F.relu(self.g2[f"conv{i}_bn"](x))
        return torch.tanh(x)


def discriminator(classes, dropout=0.3):
    """Returns D for T of 8x8: three 4/2 convolutions and two dense layers."""
    layers, inputs = {}, CONTEXT_CHANNELS
    for i, width in enumerate((64, 128, 256), 1):
        layers[f"d_conv{i}"] = conv(inputs, width, 4, 2)
        layers[f"d_conv{i}_bn"] = nn.BatchNorm2d(width)
        layers[f"d_conv{i}_act"] = nn.LeakyReLU(0.2)
        layers[f"d_conv{i}_dropout"] = nn.Dropout(dropout)
        inputs = width
    layers["d_flatten"] = nn.Flatten()
    layers["d_dense1"], layers["d_dense1_act"] = nn.Linear(inputs, 512), nn.LeakyReLU(0.2)
    layers["d_logits"] = nn.Linear(512, classes)
    return sequential(layers)


@dataclasses.dataclass(frozen=True)
class Way:
    """How PyTorch is to train; by default as it starts.

    Attributes:
        channels_last: hold images and kernels with the channels last in memory, and update all weights in one fused
            operation of the optimizer.
        compiled: compile every network with `torch.compile`.
        bfloat16: compute in bfloat16 where autocast does.
    """

    channels_last: bool = False
    compiled: bool = False
    bfloat16: bool = False

    @property
    def optimizer(self):
        """Arguments of the optimizer."""
        return {"fused": True} if self.channels_last else {}

    @property
    def memory_format(self):
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def prepare(self, *networks):
        """Changes the networks in place."""
        for network in networks:
            network.to(memory_format=self.memory_format)
            if self.compiled:
                network.compile(dynamic=False)

    def autocast(self):
        """The context in which a forward pass is computed."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16)


class ClassifierStep:
    """SGD with Nesterov momentum 0.9 and weight decay 5e-4 under cross-entropy."""

    def __init__(self, module, learning_rate, way=Way()):
        self.network, self.way = module.train(), way
        way.prepare(module)
        self.optimizer = torch.optim.SGD(
            module.parameters(), learning_rate, momentum=0.9, nesterov=True, weight_decay=5e-4, **way.optimizer
        )

    def __call__(self, images, labels):
        """Returns the metrics of the batch, as floats."""
        with self.way.autocast():
            logits = self.network(images.contiguous(memory_format=self.way.memory_format))
            loss = F.cross_entropy(logits, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            correct = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
            top1, top5 = correct[:, 0].float().mean(), correct.any(1).float().mean()
        return {"loss": loss.item(), "top1": top1.item(), "top5": top5.item()}


class ExtractorStep:
    """The two players of the CDCGM, D first, each with its own Adam (Sec. 2, Eqs. 1 and 2)."""

    def __init__(
        self,
        classes,
        *,
        dropout=0.3,
        fool_weight=1e-4,
        fool_ramp_steps=500_000,
        repulsive_weight=1e-3,
        repulsive_delta=0.01,
        clip_norm=5.0,
        way=Way(),
    ):
        self.classes, self.clip_norm, self.way = classes, clip_norm, way
        self.fool_weight, self.fool_ramp_steps = fool_weight, fool_ramp_steps
        self.repulsive_weight, self.repulsive_delta = repulsive_weight, repulsive_delta
        self.encoder, self.decoder = Encoder(), Decoder(classes)
        self.discriminator = discriminator(classes, dropout)
        self.autoencoder = nn.ModuleList([self.encoder, self.decoder])
        way.prepare(self.encoder, self.decoder, self.discriminator)
        self.optimizers = {
            player: torch.optim.Adam(player.parameters(), 2e-4, betas=(0.5, 0.999), **way.optimizer)
            for player in (self.autoencoder, self.discriminator)
        }
        self.steps = 0

    def __call__(self, images, labels):
        """Returns the metrics of the batch, as floats."""
        images = images.contiguous(memory_format=self.way.memory_format)
        metrics = self.step_discriminator(images, labels) | self.step_autoencoder(images, labels)
        self.steps += 1
        return {name: value.item() for name, value in metrics.items()}

    def step_discriminator(self, images, labels):
        self.autoencoder.eval()
        self.discriminator.train().requires_grad_(True)
        with self.way.autocast():
            with torch.no_grad():
                context = self.encoder(images)
            logits = self.discriminator(context)
            loss = F.cross_entropy(logits, labels)
        self.move(self.discriminator, loss)
        accuracy = (logits.detach().argmax(1) == labels).float().mean()
        return {"discriminator_loss": loss, "discriminator_accuracy": accuracy}

    def step_autoencoder(self, images, labels):
        self.autoencoder.train()
        self.discriminator.eval().requires_grad_(False)  # a gradient passes D, none is taken for its weights
        condition = F.one_hot(labels, self.classes).float()

        with self.way.autocast():
            context = self.encoder(images)
            reconstructions = self.decoder(context, condition)
            with statistics_kept(self.decoder):
                counterfactuals = self.decoder(context, 1.0 - condition)
            fooled = self.discriminator(context)
        reconstructions, counterfactuals, fooled = (x.float() for x in (reconstructions, counterfactuals, fooled))
        reconstruction = F.mse_loss(reconstructions, images)
        distance = (reconstructions - counterfactuals).square().mean(dim=(1, 2, 3)).clamp_min(1e-12).sqrt()
        hinge = F.relu(self.repulsive_delta - distance)
        fooling = fooled.softmax(1).gather(1, labels[:, None]).mean()
        total = reconstruction + self.repulsive_weight * hinge.mean() + self.lambda_fool * fooling
        self.move(self.autoencoder, total)
        return {
            "reconstruction_loss": reconstruction,
            "repulsive_loss": hinge.mean(),
            "repulsive_active": (hinge > 0).float().mean(),
            "fooling_loss": fooling,
        }

    @property
    def lambda_fool(self):
        """The weight of L_fool now, rising linearly from 0."""
        return self.fool_weight * (min(self.steps / self.fool_ramp_steps, 1.0) if self.fool_ramp_steps else 1.0)

    def move(self, player, loss):
        """Moves one player by the gradients of `loss`, their global norm clipped."""
        self.optimizers[player].zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(player.parameters(), self.clip_norm)
        self.optimizers[player].step()


@contextlib.contextmanager
def statistics_kept(module):
    """Lets batch norm normalise by the batch without moving its running statistics."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    yield
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def batches(images, labels, batch_size, *, padding, seed):
    """Yields the shuffled batches of one epoch, reflect-padded, cropped and flipped image by image, in [-1, 1].

    Args:
        images, labels: the whole split, (N, 3, H, W) uint8 and (N,) int64.
        batch_size: images a step.
        padding: pixels on each side before the random crop.
        seed: of order, crops and flips.
    """
    generator = torch.Generator().manual_seed(seed)
    for rows in torch.randperm(len(images), generator=generator).split(batch_size):
        if len(rows) < batch_size:
            return
        down, right = torch.randint(-padding, padding + 1, (2, batch_size), generator=generator)
        flipped = torch.rand(batch_size, generator=generator) < 0.5
        yield augment(images, rows, down, right, flipped), labels[rows]


def augment(images, rows, down, right, flipped):
    """Returns the images `rows`, moved by `down` and `right` pixels with reflection, then flipped, in [-1, 1]."""
    channels, height, width = images.shape[1:]
    y = torch.arange(height) + down[:, None]
    x = torch.arange(width)
    x = torch.where(flipped[:, None], x.flip(0), x) + right[:, None]
    y = height - 1 - (height - 1 - y.abs()).abs()
    x = width - 1 - (width - 1 - x.abs()).abs()
    index = (rows[:, None, None, None], torch.arange(channels)[:, None, None], y[:, None, :, None], x[:, None, None, :])
    return images[index].float().div_(127.5).sub_(1.0)

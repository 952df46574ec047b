"""The networks of dataset condensation (DC, DSA, DM): ConvNets, MLP, LeNet, AlexNet, VGG11, ResNet18.

The one idea: a network is features, flattened to an embedding, and a linear classifier on top. At 32 x 32
pixels the layers are the field's. Another size changes the number of features, and one thing more: no map
shrinks to a single pixel in front of a norm, because instance norm makes 0 of it.
Nothing here seeds: weights come from torch's global generator.
"""

import re
from functools import partial

import torch.nn as nn
import torch.nn.functional as F

ReLU = partial(nn.ReLU, inplace=True)  # in place: one map less to keep for every layer

# How to make the norm of maps (B, width, *size). Instance norm is a group norm with one channel per group.
NORMS = {
    "none": lambda width, *size: nn.Identity(),
    "batchnorm": lambda width, *size: nn.BatchNorm2d(width),
    "layernorm": lambda width, *size: nn.LayerNorm([width, *size]),
    "instancenorm": lambda width, *size: nn.GroupNorm(width, width),
    "groupnorm": lambda width, *size: nn.GroupNorm(4, width),
}
ACTIVATIONS = {"sigmoid": nn.Sigmoid, "relu": ReLU, "leakyrelu": partial(nn.LeakyReLU, 0.01), "swish": nn.SiLU}


class MeanPool2d(nn.Module):
    """The mean of every 2 x 2 pixels, as nn.AvgPool2d(2). On a CPU a convolution gives it in a third of the time."""

    def forward(self, maps):
        if maps.device.type != "cpu":
            return F.avg_pool2d(maps, 2)
        channels = maps.shape[1]
        return F.conv2d(maps, maps.new_full((channels, 1, 2, 2), 0.25), stride=2, groups=channels)


POOLINGS = {"maxpooling": partial(nn.MaxPool2d, 2), "avgpooling": MeanPool2d, "none": nn.Identity}


class Network(nn.Module):
    """Features and a linear classifier on them."""

    def __init__(self, layers, num_features, num_classes):
        super().__init__()
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(num_features, num_classes)

    def forward(self, images):
        """The logits of images. (B, C, H, W) -> (B, num_classes)"""
        return self.classifier(self.embed(images))

    def embed(self, images):
        """What the classifier sees of images. (B, C, H, W) -> (B, D)"""
        return self.features(images).flatten(1)  # not view: maps may lie in memory as channels_last


class ConvNet(Network):
    """net_depth times convolution, norm, activation and pooling; the embedding is the last map.

    Every pooling halves the map: at 32 x 32, three leave an embedding of 128 * 4 * 4 = 2048.
    """

    def __init__(
        self,
        channel,
        num_classes,
        net_width=128,
        net_depth=3,
        net_act="relu",
        net_norm="instancenorm",
        net_pooling="avgpooling",
        im_size=(32, 32),
    ):
        step = 1 if net_pooling == "none" else 2
        require(f"a ConvNet of depth {net_depth}", im_size, max(2, step**net_depth))
        layers, size = frame(channel, im_size)
        for _ in range(net_depth):
            layers += [
                nn.Conv2d(channel, net_width, 3, padding=1),
                pick(NORMS, net_norm, "norm")(net_width, *size),
                pick(ACTIVATIONS, net_act, "activation")(),
                pick(POOLINGS, net_pooling, "pooling")(),
            ]
            channel, size = net_width, shrink(size, step)
        super().__init__(layers, net_width * area(size), num_classes)


class MLP(Network):
    """Three linear layers; the embedding is the second hidden one (128)."""

    def __init__(self, channel, num_classes, im_size=(32, 32)):
        layers = [nn.Flatten(), nn.Linear(channel * area(im_size), 128), ReLU(), nn.Linear(128, 128), ReLU()]
        super().__init__(layers, 128, num_classes)


class LeNet(Network):
    """Two 5 x 5 convolutions, each pooled, and two linear layers; the embedding is the second one's (84)."""

    def __init__(self, channel, num_classes, im_size=(32, 32)):
        require("LeNet", im_size, 16)
        layers, size = frame(channel, im_size)
        for width in (6, 16):
            layers += [nn.Conv2d(channel, width, 5), ReLU(), nn.MaxPool2d(2)]
            size = shrink((size[0] - 4, size[1] - 4), 2)  # no padding: 5 x 5 costs 2 pixels a side
            channel = width
        layers += [nn.Flatten(), nn.Linear(16 * area(size), 120), ReLU(), nn.Linear(120, 84), ReLU()]
        super().__init__(layers, 84, num_classes)


class AlexNet(Network):
    """The field's AlexNet: five convolutions, three poolings; the embedding is the last map (192 * 4 * 4)."""

    PLAN = (
        (128, 5, True),  # width, kernel, pooled
        (192, 5, True),
        (256, 3, False),
        (192, 3, False),
        (192, 3, True),
    )

    def __init__(self, channel, num_classes, norm="none", im_size=(32, 32)):
        require("AlexNet", im_size, 8)
        layers, size = frame(channel, im_size)
        for width, kernel, pooled in self.PLAN:
            layers += [nn.Conv2d(channel, width, kernel, padding=kernel // 2), NORMS[norm](width), ReLU()]
            layers += [nn.MaxPool2d(2)] if pooled else []
            channel = width
        super().__init__(layers, channel * area(shrink(size, 8)), num_classes)


class VGG11(Network):
    """Five stages of 3 x 3 convolutions, each then pooled; the embedding is the last map (512 * 1 * 1).

    A pooling that would leave one pixel for the next stage to normalize is skipped: the fourth, at 16 x 16
    and at color 28 x 28. The last one never is, as no norm follows it.
    """

    PLAN = ((64,), (128,), (256, 256), (512, 512), (512, 512))  # the widths of each stage

    def __init__(self, channel, num_classes, norm="instancenorm", im_size=(32, 32)):
        require("VGG11", im_size, 2)
        layers, size = frame(channel, im_size)
        for stage, widths in enumerate(self.PLAN):
            if stage > 0 and min(size) >= 4:
                layers, size = [*layers, nn.MaxPool2d(2)], shrink(size, 2)
            for width in widths:
                layers += [nn.Conv2d(channel, width, 3, padding=1), NORMS[norm](width), ReLU()]
                channel = width
        super().__init__([*layers, nn.MaxPool2d(2)], channel * area(shrink(size, 2)), num_classes)


class ResNet18(Network):
    """A stem and four stages of two residual blocks; each stage after the first halves the map.

    The embedding is the mean over the whole last map (512): at 32 x 32 the field's 4 x 4 pooling. With
    average=True, the field's AP form, average pooling halves the maps instead of a stride, and the embedding
    is the whole last map (512 * 4 * 4). At 16 x 16 the last map is 2 x 2, the smallest that a norm can use.
    """

    PLAN = ((64, 1), (128, 2), (256, 2), (512, 2))  # width and stride of each stage

    def __init__(self, channel, num_classes, norm="instancenorm", average=False, im_size=(32, 32)):
        require("ResNet18", im_size, 16)
        layers = [nn.Conv2d(channel, 64, 3, padding=1, bias=False), NORMS[norm](64), ReLU()]
        channel = 64
        for width, stride in self.PLAN:
            layers += [
                ResidualBlock(channel, width, norm, stride, average),
                ResidualBlock(width, width, norm),
            ]
            channel = width
        layers += [] if average else [nn.AdaptiveAvgPool2d(1)]
        super().__init__(layers, 512 * (area(shrink(im_size, 8)) if average else 1), num_classes)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions, added to their input. With average=True a pooling stands in for the stride."""

    def __init__(self, channel, width, norm, stride=1, average=False):
        super().__init__()
        pool = [nn.AvgPool2d(stride)] if average and stride > 1 else []
        stride = 1 if average else stride
        self.residual = nn.Sequential(
            nn.Conv2d(channel, width, 3, stride, padding=1, bias=False),
            NORMS[norm](width),
            ReLU(),
            *pool,
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            NORMS[norm](width),
        )
        self.shortcut = nn.Sequential()
        if channel != width:
            project = nn.Conv2d(channel, width, 1, stride, bias=False)
            self.shortcut = nn.Sequential(project, *pool, NORMS[norm](width))

    def forward(self, maps):
        """(B, channel, H, W) -> (B, width, H / stride, W / stride)"""
        return F.relu(self.residual(maps) + self.shortcut(maps))


# What the suffixes of a ConvNet's name set. They combine in this order (norm last), as in ConvNetD2W32BN.
CONVNET_SUFFIXES = {
    "net_depth": {"D1": 1, "D2": 2, "D3": 3, "D4": 4},
    "net_width": {"W32": 32, "W64": 64, "W128": 128, "W256": 256},
    "net_act": {"AS": "sigmoid", "AR": "relu", "AL": "leakyrelu", "ASwish": "swish"},
    "net_pooling": {"NP": "none", "MP": "maxpooling", "AP": "avgpooling"},
    "net_norm": {"NN": "none", "BN": "batchnorm", "LN": "layernorm", "IN": "instancenorm", "GN": "groupnorm"},
}
CONVNET_NAME = re.compile("ConvNet" + "".join(f"({'|'.join(part)})?" for part in CONVNET_SUFFIXES.values()))

NETWORKS = {
    "MLP": MLP,
    "LeNet": LeNet,
    "AlexNet": AlexNet,
    "AlexNetBN": partial(AlexNet, norm="batchnorm"),
    "VGG11": VGG11,
    "VGG11BN": partial(VGG11, norm="batchnorm"),
    "ResNet18": ResNet18,
    "ResNet18BN": partial(ResNet18, norm="batchnorm"),
    "ResNet18BN_AP": partial(ResNet18, norm="batchnorm", average=True),
    "ConvNet": ConvNet,
    **{
        f"ConvNet{suffix}": partial(ConvNet, **{setting: value})
        for setting, part in CONVNET_SUFFIXES.items()
        for suffix, value in part.items()
    },
    "ConvNetASwishBN": partial(ConvNet, net_act="swish", net_norm="batchnorm"),
}

# Which networks each eval_mode compares; S and SS depend on the model, see get_eval_pool.
EVAL_POOLS = {
    "M": ["MLP", "ConvNet", "LeNet", "AlexNet", "VGG11", "ResNet18"],
    "B": ["ConvNetBN", "ConvNetASwishBN", "AlexNetBN", "VGG11BN", "ResNet18BN"],
    "W": [f"ConvNet{suffix}" for suffix in CONVNET_SUFFIXES["net_width"]],
    "D": [f"ConvNet{suffix}" for suffix in CONVNET_SUFFIXES["net_depth"]],
    "A": [f"ConvNet{suffix}" for suffix in CONVNET_SUFFIXES["net_act"]],
    "P": [f"ConvNet{suffix}" for suffix in CONVNET_SUFFIXES["net_pooling"]],
    "N": [f"ConvNet{suffix}" for suffix in CONVNET_SUFFIXES["net_norm"]],
}


def get_network(name, channel, num_classes, im_size=(32, 32)):
    """A freshly initialized network, on the CPU, for images (channel, *im_size)."""
    return find_network(name)(channel, num_classes, im_size=im_size)


def find_network(name):
    """What makes the network of this name: an entry of NETWORKS, or a ConvNet with suffixes combined."""
    combined = CONVNET_NAME.fullmatch(name)
    if name in NETWORKS or not combined:
        return pick(NETWORKS, name, "network")
    parts = zip(CONVNET_SUFFIXES.items(), combined.groups(), strict=True)
    return partial(ConvNet, **{setting: part[suffix] for (setting, part), suffix in parts if suffix})


def get_eval_pool(eval_mode, model):
    """The names of the networks to evaluate on: those of EVAL_POOLS, or model (SS), or model without BN (S).

    S is the name up to BN, because a synthetic set is too small to measure the statistics of a batch.
    """
    pools = {"S": [model.partition("BN")[0]], "SS": [model], **EVAL_POOLS}
    return list(pick(pools, eval_mode, "eval_mode"))


def pick(table, name, what):
    """table[name]; an unknown name is refused with the known ones."""
    if name not in table:
        raise ValueError(f"unknown {what} {name!r}; known: {', '.join(table)}")
    return table[name]


def require(what, im_size, smallest):
    """Refuse images on which what would have a map too small to pool, or of one pixel in front of a norm."""
    if min(im_size) < smallest:
        raise ValueError(
            f"{what} needs images of at least {smallest} x {smallest} pixels: "
            f"at {im_size[0]} x {im_size[1]} its last map is too small to pool or to normalize"
        )


def frame(channel, im_size):
    """The first layers, and the size (H, W) they make: a border of 2 zeros turns gray 28 x 28 into 32 x 32.

    The field writes it as 2 more pixels of padding in the first convolution. No other size needs it.
    """
    if channel == 1 and tuple(im_size) == (28, 28):
        return [nn.ZeroPad2d(2)], (32, 32)
    return [], tuple(im_size)


def shrink(size, step):
    """The size of a map (H, W) that is pooled by step."""
    return size[0] // step, size[1] // step


def area(size):
    """The pixels of a map (H, W)."""
    return size[0] * size[1]

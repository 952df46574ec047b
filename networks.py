"""The networks of the dataset-condensation codebases (DC, DSA, DM): ConvNet, MLP, LeNet, AlexNet, VGG11, ResNet18.

A network is a stack of layers (`features`), whose flattened output is the embedding, and a linear classifier on top.
At 32 x 32 pixels the layers are those of the DC code. At other sizes only the number of features changes, with one
exception: no feature map shrinks to a single pixel in front of a norm, because instance norm would turn it into 0.
Nothing here sets a seed: weights are drawn from torch's global generator.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]      # height and width of images or feature maps

relu = partial(nn.ReLU, inplace=True)       # in place: one feature map less to keep per layer

# name -> function of (width, *size) that returns the norm layer for feature maps (B, width, *size)
NORMS = {
    "none": lambda width, *size: nn.Identity(),
    "batchnorm": lambda width, *size: nn.BatchNorm2d(width),
    "layernorm": lambda width, *size: nn.LayerNorm([width, *size]),
    "instancenorm": lambda width, *size: nn.GroupNorm(width, width),        # one channel per group
    "groupnorm": lambda width, *size: nn.GroupNorm(4, width),
}
ACTIVATIONS = {"sigmoid": nn.Sigmoid, "relu": relu, "leakyrelu": partial(nn.LeakyReLU, 0.01), "swish": nn.SiLU}


class MeanPool2d(nn.Module):
    """nn.AvgPool2d(2), computed on a CPU as a convolution, which takes a third of the time."""

    def forward(self, maps: Tensor) -> Tensor:
        if maps.device.type != "cpu":
            return F.avg_pool2d(maps, 2)
        channels = maps.shape[1]
        return F.conv2d(maps, maps.new_full((channels, 1, 2, 2), 0.25), stride=2, groups=channels)


POOLINGS = {"maxpooling": partial(nn.MaxPool2d, 2), "avgpooling": MeanPool2d, "none": nn.Identity}


class Network(nn.Module):
    """Feature layers and a linear classifier."""

    def __init__(self, layers: list[nn.Module], num_features: int, num_classes: int):
        super().__init__()
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(num_features, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of images: (B, C, H, W) -> (B, num_classes)."""
        return self.classifier(self.embed(images))

    def embed(self, images: Tensor) -> Tensor:
        """Return the classifier's input for images: (B, C, H, W) -> (B, D)."""
        return self.features(images).flatten(1)     # not view: the memory format may be channels_last


class ConvNet(Network):
    """net_depth blocks of convolution, norm, activation and pooling; the embedding is the last feature map.

    Every pooling halves the map: at 32 x 32, three of them leave an embedding of 128 * 4 * 4 = 2048.
    """

    def __init__(
        self, in_channels: int, num_classes: int, net_width: int = 128, net_depth: int = 3, net_act: str = "relu",
        net_norm: str = "instancenorm", net_pooling: str = "avgpooling", im_size: Size = (32, 32),
    ):
        stride = 1 if net_pooling == "none" else 2
        require_size(f"a ConvNet of depth {net_depth}", im_size, max(2, stride**net_depth))
        layers, size = pad_to_32(in_channels, im_size)
        for _ in range(net_depth):
            layers += [
                nn.Conv2d(in_channels, net_width, 3, padding=1),
                lookup(NORMS, net_norm, "norm")(net_width, *size),
                lookup(ACTIVATIONS, net_act, "activation")(),
                lookup(POOLINGS, net_pooling, "pooling")(),
            ]
            in_channels, size = net_width, downsample(size, stride)
        super().__init__(layers, net_width * num_pixels(size), num_classes)


class MLP(Network):
    """Three linear layers; the embedding is the second hidden layer (128)."""

    def __init__(self, in_channels: int, num_classes: int, im_size: Size = (32, 32)):
        num_inputs = in_channels * num_pixels(im_size)
        layers = [nn.Flatten(), nn.Linear(num_inputs, 128), relu(), nn.Linear(128, 128), relu()]
        super().__init__(layers, 128, num_classes)


class LeNet(Network):
    """Two 5 x 5 convolutions with pooling and two linear layers; the embedding is the second linear layer (84)."""

    def __init__(self, in_channels: int, num_classes: int, im_size: Size = (32, 32)):
        require_size("LeNet", im_size, 16)
        layers, size = pad_to_32(in_channels, im_size)
        for width in (6, 16):
            layers += [nn.Conv2d(in_channels, width, 5), relu(), nn.MaxPool2d(2)]
            size = downsample((size[0] - 4, size[1] - 4), 2)    # 5 x 5 without padding takes 2 pixels off each side
            in_channels = width
        layers += [nn.Flatten(), nn.Linear(16 * num_pixels(size), 120), relu(), nn.Linear(120, 84), relu()]
        super().__init__(layers, 84, num_classes)


class AlexNet(Network):
    """The AlexNet of the DC code: five convolutions, three poolings; the embedding is the last map (192 * 4 * 4)."""

    # width, kernel size, whether a pooling follows
    LAYERS = ((128, 5, True), (192, 5, True), (256, 3, False), (192, 3, False), (192, 3, True))

    def __init__(self, in_channels: int, num_classes: int, norm: str = "none", im_size: Size = (32, 32)):
        require_size("AlexNet", im_size, 8)
        layers, size = pad_to_32(in_channels, im_size)
        for width, kernel_size, is_pooled in self.LAYERS:
            layers += [nn.Conv2d(in_channels, width, kernel_size, padding=kernel_size // 2), NORMS[norm](width), relu()]
            layers += [nn.MaxPool2d(2)] if is_pooled else []
            in_channels = width
        super().__init__(layers, in_channels * num_pixels(downsample(size, 8)), num_classes)


class VGG11(Network):
    """Five stages of 3 x 3 convolutions, each followed by a pooling; the embedding is the last map (512 * 1 * 1).

    A pooling that would leave one pixel for the next stage to normalize is skipped: the fourth one, at 16 x 16 and for
    color images of 28 x 28. The last one is never skipped, since no norm follows it.
    """

    STAGE_WIDTHS = ((64,), (128,), (256, 256), (512, 512), (512, 512))

    def __init__(self, in_channels: int, num_classes: int, norm: str = "instancenorm", im_size: Size = (32, 32)):
        require_size("VGG11", im_size, 2)
        layers, size = pad_to_32(in_channels, im_size)
        for stage, widths in enumerate(self.STAGE_WIDTHS):
            if stage > 0 and min(size) >= 4:
                layers, size = [*layers, nn.MaxPool2d(2)], downsample(size, 2)
            for width in widths:
                layers += [nn.Conv2d(in_channels, width, 3, padding=1), NORMS[norm](width), relu()]
                in_channels = width
        super().__init__([*layers, nn.MaxPool2d(2)], in_channels * num_pixels(downsample(size, 2)), num_classes)


class ResNet18(Network):
    """A first convolution and four stages of two residual blocks; each stage after the first halves the feature map.

    The embedding is the mean over the last map (512), at 32 x 32 the 4 x 4 pooling of the DC code. With average=True
    (the DC code's ResNet18BN_AP), average pooling replaces the strides and the embedding is the last map (512 * 4 * 4).
    At 16 x 16 pixels the last map is 2 x 2, the smallest that a norm can use.
    """

    STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))        # width and stride

    def __init__(self, in_channels: int, num_classes: int, norm: str = "instancenorm", average: bool = False,
                 im_size: Size = (32, 32)):
        require_size("ResNet18", im_size, 16)
        layers = [nn.Conv2d(in_channels, 64, 3, padding=1, bias=False), NORMS[norm](64), relu()]
        in_channels = 64
        for width, stride in self.STAGES:
            layers += [ResidualBlock(in_channels, width, norm, stride, average), ResidualBlock(width, width, norm)]
            in_channels = width
        layers += [] if average else [nn.AdaptiveAvgPool2d(1)]
        super().__init__(layers, 512 * (num_pixels(downsample(im_size, 8)) if average else 1), num_classes)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions, added to their input. With average=True, average pooling replaces the stride."""

    def __init__(self, in_channels: int, width: int, norm: str, stride: int = 1, average: bool = False):
        super().__init__()
        pool = [nn.AvgPool2d(stride)] if average and stride > 1 else []
        stride = 1 if average else stride
        self.residual = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False),
            NORMS[norm](width),
            relu(),
            *pool,
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            NORMS[norm](width),
        )
        self.shortcut = nn.Sequential()
        if in_channels != width:
            projection = nn.Conv2d(in_channels, width, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, *pool, NORMS[norm](width))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, width, H / stride, W / stride)"""
        return F.relu(self.residual(maps) + self.shortcut(maps))


# The suffixes of a ConvNet's name and what they set. They combine in this order, norm last: ConvNetD2W32BN.
CONVNET_SUFFIXES = {
    "net_depth": {"D1": 1, "D2": 2, "D3": 3, "D4": 4, "D5": 5, "D6": 6},      # the last two for 128 and 224 pixels
    "net_width": {"W32": 32, "W64": 64, "W128": 128, "W256": 256},
    "net_act": {"AS": "sigmoid", "AR": "relu", "AL": "leakyrelu", "ASwish": "swish"},
    "net_pooling": {"NP": "none", "MP": "maxpooling", "AP": "avgpooling"},
    "net_norm": {"NN": "none", "BN": "batchnorm", "LN": "layernorm", "IN": "instancenorm", "GN": "groupnorm"},
}
CONVNET_NAME = re.compile("ConvNet" + "".join(f"({'|'.join(values)})?" for values in CONVNET_SUFFIXES.values()))

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
        for setting, values in CONVNET_SUFFIXES.items()
        for suffix, value in values.items()
    },
    "ConvNetASwishBN": partial(ConvNet, net_act="swish", net_norm="batchnorm"),
}

# The networks that each eval_mode compares; S and SS depend on the model, see get_eval_pool.
EVAL_POOLS = {
    "M": ["MLP", "ConvNet", "LeNet", "AlexNet", "VGG11", "ResNet18"],
    "B": ["ConvNetBN", "ConvNetASwishBN", "AlexNetBN", "VGG11BN", "ResNet18BN"],
    "W": [f"ConvNet{suffix}" for suffix in CONVNET_SUFFIXES["net_width"]],
    "D": ["ConvNetD1", "ConvNetD2", "ConvNetD3", "ConvNetD4"],
    "A": [f"ConvNet{suffix}" for suffix in CONVNET_SUFFIXES["net_act"]],
    "P": [f"ConvNet{suffix}" for suffix in CONVNET_SUFFIXES["net_pooling"]],
    "N": [f"ConvNet{suffix}" for suffix in CONVNET_SUFFIXES["net_norm"]],
}


def get_network(name: str, in_channels: int, num_classes: int, im_size: Size = (32, 32)) -> Network:
    """Return a newly initialized network, on the CPU, for images (in_channels, *im_size).

    Raises ValueError for an unknown name and for images too small for the network.
    """
    return network_factory(name)(in_channels, num_classes, im_size=im_size)


def network_factory(name: str) -> Callable[..., Network]:
    """Return the constructor of a network: an entry of NETWORKS, or a ConvNet with suffixes combined.

    Raises ValueError, which lists the known names, for an unknown name.
    """
    match = CONVNET_NAME.fullmatch(name)
    if name in NETWORKS or not match:
        return lookup(NETWORKS, name, "network")
    suffixes = zip(CONVNET_SUFFIXES.items(), match.groups(), strict=True)
    return partial(ConvNet, **{setting: values[suffix] for (setting, values), suffix in suffixes if suffix})


def get_eval_pool(eval_mode: str, model: str) -> list[str]:
    """Return the names of the networks to evaluate on: an entry of EVAL_POOLS, model (SS), or model without BN (S).

    S cuts the name at BN, because a synthetic set is too small to estimate the statistics of batch norm.
    """
    pools = {"S": [model.partition("BN")[0]], "SS": [model], **EVAL_POOLS}
    return list(lookup(pools, eval_mode, "eval_mode"))


def lookup(table: Mapping, name: str, kind: str):
    """Return table[name]; raise ValueError with the known names if there is none."""
    if name not in table:
        raise ValueError(f"unknown {kind} {name!r}; known: {', '.join(table)}")
    return table[name]


def require_size(network: str, im_size: Size, minimum: int) -> None:
    """Raise ValueError if a feature map would be too small to be pooled, or would be normalized as a single pixel."""
    if min(im_size) < minimum:
        raise ValueError(
            f"{network} needs images of at least {minimum} x {minimum} pixels: "
            f"at {im_size[0]} x {im_size[1]} its last map is too small to pool or to normalize"
        )


def pad_to_32(in_channels: int, im_size: Size) -> tuple[list[nn.Module], Size]:
    """Return the first layers and the size of their output: gray 28 x 28 images get a border of zeros, to 32 x 32.

    Equal to the 2 extra pixels of padding in the first convolution of the DC code. Other images get no layer.
    """
    if in_channels == 1 and tuple(im_size) == (28, 28):
        return [nn.ZeroPad2d(2)], (32, 32)
    return [], tuple(im_size)


def downsample(size: Size, stride: int) -> Size:
    """Return the size of a feature map after pooling by stride."""
    return size[0] // stride, size[1] // stride


def num_pixels(size: Size) -> int:
    """Return the number of pixels of a feature map."""
    return size[0] * size[1]

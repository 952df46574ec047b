"""Differentiable siamese augmentation (DSA, Zhao & Bilen 2021) with explicit draws, so that images can share them.

A draw names one operation and the random numbers it needs. Matching uses one draw per class, shared by its real and
synthetic images (siamese); training a network uses one operation per batch and separate numbers for every image.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fairdd.core.device import upload

BRIGHTNESS, SATURATION, CONTRAST = 1.0, 2.0, 0.5    # the published ratios of every operation
CROP_PAD = 0.125                                    # of the side
CUTOUT = 0.5                                        # of the side
FLIP = 0.5                                          # probability
SCALE = 1.2                                         # between 1/1.2 and 1.2 of the size, each axis independently
ROTATE = 15.0                                       # degrees, in either direction
DC_CROP, DC_NOISE = 4, 0.001                        # pixels at any size; standard deviation, after normalization


@dataclass(frozen=True)
class Draws:
    """D draws. names: the operations of the strategy; which: (D,) the one drawn; numbers: (D, 3) uniform in [0, 1)."""

    names: tuple[str, ...]
    which: Tensor
    numbers: Tensor


def draw(strategy: str, count: int, generator: torch.Generator | None = None,
         one_operation: bool = False) -> Draws | None:
    """Draw count augmentations of a strategy such as "color_crop_cutout_flip_scale_rotate"; None for "none"."""
    if strategy.lower() == "none":
        return None
    names = tuple(strategy.split("_"))
    which = torch.randint(len(names), (1 if one_operation else count,), generator=generator).expand(count)
    return Draws(names, which, torch.rand(count, 3, generator=generator))


def draw_composed(strategy: str, count: int, generator: torch.Generator | None = None) -> tuple[Draws, ...]:
    """Draw count augmentations as IDC composes them: flip, color, one of the other operations, then cutout.

    Each stage takes part if its operations are in the strategy.
    """
    names = [] if strategy == "none" else strategy.split("_")
    others = [name for name in names if name not in ("flip", "color", "cutout")]
    stages = [[name] if name in names else [] for name in ("flip", "color")] + [others]
    stages.append(["cutout"] if "cutout" in names else [])
    return tuple(draw("_".join(stage), count, generator) for stage in stages if stage)


def join_draws(draws: Sequence[Draws | tuple[Draws, ...] | None]) -> Draws | tuple[Draws, ...] | None:
    """Return several draws of one strategy as one, one after another."""
    first = draws[0]
    if first is None or len(draws) == 1:
        return first
    if isinstance(first, tuple):
        return tuple(join_draws(stages) for stages in zip(*draws, strict=True))
    return Draws(first.names, torch.cat([d.which for d in draws]), torch.cat([d.numbers for d in draws]))


def augment(images: Tensor, draws: Draws | Sequence[Draws] | None, index: Tensor | None = None) -> Tensor:
    """Apply its draw to each image. images: (B, C, H, W); index: (B,) the draw of each (default: draw i to image i).

    Several draws are applied one after another.
    """
    if draws is None:
        return images
    if isinstance(draws, tuple):
        for stage in draws:
            images = augment(images, stage, index)
        return images
    if images.device.type != "cpu":
        return augment_at_once(images, draws, index)
    index = torch.arange(len(images)) if index is None else index.cpu()
    which = draws.which[index]
    rows = [(which == number).nonzero().squeeze(1) for number in range(len(draws.names))]
    augmented = [
        OPERATIONS[name](images[chosen.to(images.device)], draws.numbers[index[chosen]].to(images.device))
        for name, chosen in zip(draws.names, rows, strict=True)
        if len(chosen)
    ]
    inverse = torch.cat(rows).argsort().to(images.device)
    return torch.cat(augmented)[inverse]


def augment_at_once(images: Tensor, draws: Draws, index: Tensor | None = None) -> Tensor:
    """Return the same as augment, up to rounding, in few operations: a GPU's way, where a launch is what costs.

    Every image goes through a color change, one resampling and a cutout; those that its draw did not name change
    nothing. What no draw names is left out.
    """
    height, width = images.shape[-2:]
    names = {draws.names[number] for number in draws.which.unique().tolist()}
    table = [draw_table(draws, height, width).to(images.dtype)]
    table, *index = upload(images.device, *table, *([] if index is None else [index.cpu()]))
    colors, matrices, rows, columns = (table[index[0]] if index else table).split([3, 6, height, width], 1)
    if "color" in names:
        shift, saturation, contrast = colors.t().reshape(3, -1, 1, 1, 1)
        images = images + shift
        images = torch.lerp(images.mean(1, keepdim=True), images, saturation)
        images = torch.lerp(images.mean((1, 2, 3), keepdim=True), images, contrast)
    if names & {"crop", "flip", "scale", "rotate"}:
        grid = matrices.reshape(-1, 3) @ pixel_centers(height, width, images.dtype, images.device)
        grid = grid.view(-1, 2, height, width).permute(0, 2, 3, 1)
        images = F.grid_sample(images, grid, align_corners=False)
    if "cutout" in names:
        images = images * (1 - rows[:, None, :, None] * columns[:, None, None, :])
    return images


def draw_table(draws: Draws, height: int, width: int) -> Tensor:
    """Return what each draw does, in numbers; those of operations that it did not name change nothing.

    -> (D, 3 + 6 + height + width) float64: the brightness added, the factors of saturation and contrast; the 2 x 3
    matrix from output to input coordinates in [-1, 1]; which rows and columns a cutout covers, as 0 or 1
    """
    count = len(draws.which)
    colors = torch.tensor([0.0, 1.0, 1.0]).repeat(count, 1).double()
    matrices = torch.eye(2, 3).repeat(count, 1, 1).double()
    covered = [torch.zeros(count, side).double() for side in (height, width)]
    for number, name in enumerate(draws.names):
        chosen = (draws.which == number).nonzero().flatten()
        u = draws.numbers[chosen]
        if name == "color":
            colors[chosen] = torch.stack([(u[:, 0] - 0.5) * BRIGHTNESS, u[:, 1] * SATURATION, u[:, 2] + CONTRAST],
                                         1).double()
        elif name == "cutout":
            for axis, side in enumerate((height, width)):
                covered[axis][chosen] = _covered(side, int(side * CUTOUT + 0.5), u[:, axis]).double()
        elif name == "crop":
            down, right = (_integer(u[:, axis], -_pad(side), _pad(side)).double() / side
                           for axis, side in enumerate((height, width)))
            matrices[chosen, :, 2] = 2 * torch.stack([right, down], 1)
        else:
            matrices[chosen, :, :2] = LINEAR_MAPS[name](u).double()
    return torch.cat([colors, matrices.flatten(1), *covered], 1)


@functools.lru_cache(8)
def pixel_centers(height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the coordinates x, y in [-1, 1] of every pixel, and 1. (3, height * width)"""
    y, x = ((torch.arange(side, dtype=torch.float64) * 2 + 1) / side - 1 for side in (height, width))
    y, x = torch.meshgrid(y, x, indexing="ij")
    return upload(device, torch.stack([x, y, torch.ones_like(x)]).flatten(1).to(dtype))[0]


def crop_noise(images: Tensor, generator: torch.Generator) -> Tensor:
    """Apply DC's training augmentation for batch-norm networks: each image gets either a shift or noise, at random.

    As in the released code, a shift is by -4 to 3 whole pixels on each axis and filled with the batch's channel means.
    """
    numbers = torch.rand(len(images), 3, generator=generator).to(images.device)
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    shifted, is_inside = _shift(images, *_integer(numbers[:, 1:], -DC_CROP, DC_CROP - 1).unbind(1))
    shifted = torch.where(is_inside, shifted, images.mean((0, 2, 3), keepdim=True))
    return torch.where((numbers[:, 0] < 0.5)[:, None, None, None], shifted, images + DC_NOISE * noise)


def cutmix(images: Tensor, labels: Tensor, probability: float, *generators: torch.Generator) -> tuple[Tensor, ...]:
    """Replace a box of every image by the same box of another image of the batch (CutMix, Yun et al. 2019).

    images: (B, C, H, W), a batch for each generator; labels: (B,); probability: that a batch is mixed. Returns the
    images, the labels of the other images, and the shares of the area that keep their own label (B,), which are the
    weights of the own labels in the loss.
    """
    count, (height, width) = len(images) // len(generators), images.shape[-2:]
    boxes = [draw_box(probability, count, height, width, generator) for generator in generators]
    orders, rows, columns, shares = zip(*boxes, strict=True)
    order = torch.cat([number * count + order for number, order in enumerate(orders)])
    order, rows, columns, shares = upload(
        images.device, order, *(torch.stack(x).repeat_interleave(count, 0) for x in (rows, columns, shares)))
    is_inside = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(is_inside, images[order], images), labels[order], shares.to(images.dtype)


def draw_box(probability: float, count: int, height: int, width: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Draw the other image of each (B,), the rows (H,) and columns (W,) of the box, and the share outside of it ()."""
    rows, columns = torch.zeros(height, dtype=torch.bool), torch.zeros(width, dtype=torch.bool)
    if torch.rand(1, generator=generator).item() >= probability:
        return torch.arange(count), rows, columns, torch.ones((), dtype=torch.float64)
    share, x, y = torch.rand(3, generator=generator).tolist()       # Beta(1, 1) is uniform
    for center, side, is_covered in ((y, height, rows), (x, width, columns)):
        start, end = (min(max(int(center * side) + sign * int(side * math.sqrt(1 - share)) // 2, 0), side)
                      for sign in (-1, 1))
        is_covered[start:end] = True
    order = torch.randperm(count, generator=generator)
    return order, rows, columns, 1 - rows.double().mean() * columns.double().mean()


def color(images: Tensor, u: Tensor) -> Tensor:
    """Change brightness, then saturation, then contrast, each by one of the numbers u (B, 3)."""
    brightness, saturation, contrast = u.t().reshape(3, -1, 1, 1, 1)
    images = images + (brightness - 0.5) * BRIGHTNESS
    gray = images.mean(1, keepdim=True)
    images = (images - gray) * (saturation * SATURATION) + gray
    level = images.mean((1, 2, 3), keepdim=True)
    return (images - level) * (contrast + CONTRAST) + level


def crop(images: Tensor, u: Tensor) -> Tensor:
    """Shift by whole pixels, up to CROP_PAD of the side, filling with zeros."""
    down, right = (_integer(u[:, axis], -_pad(side), _pad(side)) for axis, side in enumerate(images.shape[-2:]))
    shifted, is_inside = _shift(images, down, right)
    return shifted * is_inside


def cutout(images: Tensor, u: Tensor) -> Tensor:
    """Set a square of CUTOUT of the side to zero, its center anywhere in the image."""
    height, width = images.shape[-2:]
    erased = [_covered(side, int(side * CUTOUT + 0.5), u[:, axis]) for axis, side in enumerate((height, width))]
    return images * ~(erased[0][:, None, :, None] & erased[1][:, None, None, :])


def flip(images: Tensor, u: Tensor) -> Tensor:
    """Mirror horizontally with probability FLIP."""
    return torch.where((u[:, 0] < FLIP)[:, None, None, None], images.flip(-1), images)


def scale(images: Tensor, u: Tensor) -> Tensor:
    """Stretch each axis by a factor between 1/SCALE and SCALE."""
    return _transform(images, scale_map(u))


def rotate(images: Tensor, u: Tensor) -> Tensor:
    """Rotate by up to ROTATE degrees in either direction."""
    return _transform(images, rotation_map(u))


def flip_map(u: Tensor) -> Tensor:
    """Return the linear map of flip from output to input coordinates. (B, 3) -> (B, 2, 2)"""
    sign = torch.where(u[:, 0] < FLIP, -1.0, 1.0)
    return torch.diag_embed(torch.stack([sign, torch.ones_like(sign)], 1))


def scale_map(u: Tensor) -> Tensor:
    """Return the linear map of scale from output to input coordinates. (B, 3) -> (B, 2, 2)"""
    return torch.diag_embed(1 / SCALE + u[:, :2] * (SCALE - 1 / SCALE))


def rotation_map(u: Tensor) -> Tensor:
    """Return the linear map of rotate from output to input coordinates. (B, 3) -> (B, 2, 2)"""
    angle = (2 * u[:, 0] - 1) * math.radians(ROTATE)
    rows = [torch.stack([angle.cos(), -angle.sin()], 1), torch.stack([angle.sin(), angle.cos()], 1)]
    return torch.stack(rows, 1)


OPERATIONS = {"color": color, "crop": crop, "cutout": cutout, "flip": flip, "scale": scale, "rotate": rotate}
LINEAR_MAPS = {"flip": flip_map, "scale": scale_map, "rotate": rotation_map}


def DiffAugment(images: Tensor, strategy: str = "", seed: int = -1) -> Tensor:
    """Augment as DSA's function of this name: with a seed, one draw for all images; with -1, numbers for each image."""
    if strategy.lower() in ("", "none"):
        return images
    if seed == -1:
        return augment(images, draw(strategy, len(images), one_operation=True))
    shared = draw(strategy, 1, torch.Generator().manual_seed(seed))
    return augment(images, shared, torch.zeros(len(images), dtype=torch.int64))


def _transform(images: Tensor, matrices: Tensor) -> Tensor:
    """Resample images (B, C, H, W) through linear maps (B, 2, 2) about their centers, filling with zeros."""
    theta = F.pad(matrices, (0, 1)).to(images.dtype)
    grid = F.affine_grid(theta, images.shape, align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def _shift(images: Tensor, down: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return images moved up by down (B,) and left by right (B,) pixels, and which pixels come from inside an image.

    Returns ((B, C, H, W), (B, 1, H, W) bool); the other pixels repeat the border.
    """
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device) + down[:, None]       # (B, H): where each row comes from
    columns = torch.arange(width, device=images.device) + right[:, None]
    is_inside = _within(rows, height)[:, None, :, None] & _within(columns, width)[:, None, None, :]
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    shifted = images[batch, :, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]]
    return shifted.permute(0, 3, 1, 2), is_inside


def _integer(u: Tensor, low: int, high: int) -> Tensor:
    """Map uniform numbers in [0, 1) to integers low..high."""
    return low + (u * (high - low + 1)).long()


def _pad(side: int) -> int:
    return int(side * CROP_PAD + 0.5)


def _within(positions: Tensor, side: int) -> Tensor:
    return (positions >= 0) & (positions < side)


def _covered(side: int, length: int, u: Tensor) -> Tensor:
    """Return which of side positions an interval of this length covers, its center drawn by u (B,). (B, side) bool"""
    start = _integer(u, 0, side - length % 2) - length // 2
    positions = torch.arange(side, device=u.device) - start[:, None]
    return _within(positions, length)

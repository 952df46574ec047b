"""Augmentation: images that share a draw are treated alike, and every operation does what its name says."""

import math

import pytest
import torch

from fairdd.matching.augment import (
    OPERATIONS,
    DiffAugment,
    Draws,
    augment,
    crop,
    crop_noise,
    cutout,
    draw,
    flip,
    rotate,
    scale,
)

ALL = "_".join(OPERATIONS)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", OPERATIONS)
def test_images_with_the_same_draw_are_treated_alike_whatever_else_is_in_the_batch(name):
    image = torch.randn(1, 3, 16, 16, generator=generator())
    draws = draw(name, 3, generator())
    batch = torch.cat([torch.randn(4, 3, 16, 16), image, image])
    index = torch.tensor([0, 1, 2, 0, 1, 1])
    together = augment(batch, draws, index)
    alone = augment(image, draws, torch.tensor([1]))
    assert torch.allclose(together[4], together[5]) and torch.allclose(together[4:5], alone, atol=1e-6)


def test_each_image_gets_the_operation_of_its_draw():
    images = torch.randn(8, 3, 16, 16, generator=generator())
    names = tuple(OPERATIONS)
    draws = Draws(names, torch.arange(8) % len(names), torch.rand(8, 3, generator=generator()))
    result = augment(images, draws)
    for row in range(8):
        alone = OPERATIONS[names[row % len(names)]](images[row, None], draws.numbers[row, None])
        assert torch.allclose(result[row, None], alone, atol=1e-6)


@pytest.mark.parametrize("name", OPERATIONS)
def test_pixels_get_the_true_gradient(name):
    images = torch.randn(2, 3, 8, 8, generator=generator()).double().requires_grad_(True)
    numbers = torch.rand(2, 3, generator=generator()).double()
    assert torch.autograd.gradcheck(lambda x: OPERATIONS[name](x, numbers), images)


def test_a_draw_depends_on_its_generator_alone():
    first, again, other = (draw(ALL, 50, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.numbers, again.numbers) and torch.equal(first.which, again.which)
    assert not torch.equal(first.numbers, other.numbers)


def test_every_operation_is_drawn_and_a_training_batch_has_a_single_operation():
    assert set(draw(ALL, 200, generator()).which.tolist()) == set(range(6))
    assert len(set(draw(ALL, 200, generator(), one_operation=True).which.tolist())) == 1


def test_none_changes_nothing():
    images = torch.randn(2, 3, 8, 8)
    assert augment(images, draw("none", 2)) is images


@pytest.mark.parametrize("side", [16, 32, 64])
def test_crop_shifts_by_whole_pixels_up_to_an_eighth_and_fills_with_zeros(side):
    images = torch.rand(1, 1, side, side) + 1
    pad = side // 8
    for u, shift in ((0.0, -pad), (0.5, 0), (0.999, pad)):
        shifted = crop(images, torch.tensor([[u, 0.5, 0]]))
        expected = torch.zeros_like(images)
        kept = slice(max(0, -shift), side - max(0, shift))
        expected[:, :, kept] = images[:, :, kept.start + shift : kept.stop + shift]
        assert torch.equal(shifted, expected)


def test_cutout_erases_half_a_side_inside_the_image_and_less_at_its_border():
    images = torch.ones(1, 1, 32, 32)
    assert (cutout(images, torch.full((1, 3), 0.5)) == 0).sum() == 16 * 16
    assert (cutout(images, torch.zeros(1, 3)) == 0).sum() == 8 * 8


def test_flip_mirrors_left_and_right():
    images = torch.randn(2, 3, 4, 4)
    flipped = flip(images, torch.tensor([[0.49, 0, 0], [0.51, 0, 0]]))
    assert torch.equal(flipped[0], images[0].flip(-1)) and torch.equal(flipped[1], images[1])


def test_scale_and_rotate_do_nothing_in_the_middle_of_their_range():
    images = torch.randn(1, 3, 16, 16)
    factor_one = (1 - 1 / 1.2) / (1.2 - 1 / 1.2)
    assert torch.allclose(scale(images, torch.full((1, 3), factor_one)), images, atol=1e-4)
    assert torch.allclose(rotate(images, torch.full((1, 3), 0.5)), images, atol=1e-4)


def test_rotate_turns_by_at_most_fifteen_degrees():
    images = torch.zeros(1, 1, 65, 65)
    images[:, :, 32, 52] = 1                            # 20 pixels right of the center
    rotated = rotate(images, torch.ones(1, 3))[0, 0]
    row, column = (rotated == rotated.max()).nonzero()[0] - 32
    assert math.degrees(math.atan2(abs(row), column)) == pytest.approx(15, abs=1.5)


@pytest.mark.parametrize("side", [8, 20])
def test_crop_noise_gives_each_image_either_a_shift_filled_with_channel_means_or_noise(side):
    count, pad = 2000, 4
    images = torch.randn(count, 3, side, side, generator=generator()) + torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1)
    result = crop_noise(images, generator(1))
    padded = images.mean((0, 2, 3)).view(1, 3, 1, 1).repeat(count, 1, side + 2 * pad, side + 2 * pad)
    padded[:, :, pad:-pad, pad:-pad] = images
    times = torch.zeros(2 * pad, 2 * pad)
    is_shifted = torch.zeros(count, dtype=torch.bool)
    for row in range(2 * pad):
        for column in range(2 * pad):
            cut = padded[:, :, row : row + side, column : column + side]
            is_equal = ((result - cut).abs() < 1e-5).flatten(1).all(1)
            times[row, column] = is_equal.sum()
            is_shifted |= is_equal
    noise = (result - images)[~is_shifted] / 0.001
    assert times.sum() == is_shifted.sum() and abs(is_shifted.float().mean() - 0.5) < 0.05
    assert (times > 0).all() and (times.sum(0) > 80).all() and (times.sum(1) > 80).all()       # 125 are expected
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01 and noise.abs().max() < 7


def test_diff_augment_with_a_seed_treats_all_images_alike_and_without_it_does_not():
    images = torch.randn(1, 3, 16, 16).expand(6, -1, -1, -1)
    same = DiffAugment(images, "color", seed=5)
    assert torch.allclose(same, same[:1].expand_as(same))
    different = DiffAugment(images, "color")
    assert not torch.allclose(different[0], different[1])

"""The start of the synthetic set: random, balanced or noise; and the step that moves it."""

import pytest
import torch
import torch.nn.functional as F

from fairdd.core.errors import UserError
from fairdd.datasets import GroupedImages
from fairdd.matching.synset import SynSet, expand_grid, pack_grid


def faces(cells):
    """A data set with cells[label][group] images, each of one value, its row number."""
    pairs = [(y, g) for y, row in enumerate(cells) for g, size in enumerate(row) for _ in range(size)]
    labels, groups = torch.tensor(pairs).t().contiguous()
    images = torch.arange(len(pairs), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()
    names = [tuple(f"{kind}{i}" for i in range(n)) for kind, n in (("class", len(cells)), ("group", len(cells[0])))]
    return GroupedImages(images, labels, groups, *names, (0.5,) * 3, (0.5,) * 3)


def rows_of(syn):
    """Which images of faces a start took."""
    return ((syn.images.detach() * 0.5 + 0.5) * 255).round().long()[:, 0, 0, 0]


REAL = faces([[30, 3, 7], [2, 20, 18]])


@pytest.mark.parametrize("init", ["real", "balanced"])
def test_a_start_takes_different_images_of_each_class_in_order(init):
    syn = start(REAL, 10, init, 1.0, 0)
    rows = rows_of(syn)
    assert syn.labels.tolist() == [0] * 10 + [1] * 10
    assert torch.equal(REAL.labels[rows], syn.labels) and len(set(rows.tolist())) == 20


@pytest.mark.parametrize(("ipc", "expected"), [(9, [[3, 3, 3], [2, None, None]]), (6, [[2, 2, 2], [2, 2, 2]])])
def test_balanced_takes_the_same_number_of_every_group_and_what_a_small_one_lacks_from_the_others(ipc, expected):
    rows = rows_of(start(REAL, ipc, "balanced", 1.0, 0))
    for label in (0, 1):
        counts = torch.bincount(REAL.groups[rows][REAL.labels[rows] == label], minlength=3).tolist()
        assert all(want in (None, got) for want, got in zip(expected[label], counts, strict=True))
        assert sum(counts) == ipc and max(counts) - min(c for c in counts if c > 2 or ipc == 6) <= 1


def test_a_remainder_goes_to_a_drawn_group_not_always_the_first():
    extra = {tuple(torch.bincount(REAL.groups[rows_of(start(REAL, 1, "balanced", 1.0, seed))[:1]]).tolist())
             for seed in range(20)}
    assert len(extra) == 3


def test_real_keeps_the_proportions_of_groups_on_average():
    counts = sum(torch.bincount(REAL.groups[rows_of(start(REAL, 10, "real", 1.0, seed))[:10]], minlength=3)
                 for seed in range(200))
    assert torch.allclose(counts / counts.sum(), torch.tensor([0.75, 0.075, 0.175]), atol=0.03)


def test_noise_is_standard_normal_and_needs_no_images_of_the_class():
    syn = start(REAL, 100, "noise", 1.0, 0)
    assert len(syn) == 200 and abs(syn.images.mean()) < 0.05 and abs(syn.images.std() - 1) < 0.05


@pytest.mark.parametrize("init", ["real", "balanced", "noise"])
def test_a_start_depends_on_its_key_alone(init):
    first, again, other = (start(REAL, 10, init, 1.0, key).images for key in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("init", ["real", "balanced"])
def test_more_images_than_a_class_has_are_refused_by_its_name(init):
    with pytest.raises(UserError, match=r"--ipc 41.*'class0'.*40"):
        start(REAL, 41, init, 1.0, 0)


def test_a_step_is_sgd_with_momentum_one_half_on_the_sum_of_losses():
    syn = SynSet(torch.zeros(2, 1, 1, 1), torch.tensor([0, 1]), lr_img=0.1)
    total = syn.step(iter([syn.images[0].sum(), 3 * syn.images[1].sum()]))
    syn.step([(syn.images * torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)).sum()])
    assert total == 0 and torch.allclose(syn.images.flatten(), -0.1 * (1 + 1.5) * torch.tensor([1.0, 3.0]))


def test_what_networks_train_on_is_cut_off_from_the_pixels_gradient():
    syn = start(REAL, 2, "real", 1.0, 0)
    assert not syn.as_dataset().batch(torch.tensor([0])).requires_grad and syn.of_class(1).requires_grad


def test_factor_one_changes_nothing():
    plain, same = start(REAL, 10, "real", 1.0, 0), start(REAL, 10, "real", 1.0, 0, factor=1)
    assert torch.equal(plain.images, same.images) and same.expanded() is same.images
    assert torch.equal(same.labels, same.image_labels)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_decoding_gives_back_packed_images_of_one_value_in_their_order(factor):
    values = torch.randn(5 * factor**2, 3, 1, 1)
    images = values.expand(-1, -1, 12, 6)
    packed = pack_grid(images, factor)
    assert packed.shape == (5, 3, 12, 6) and torch.allclose(expand_grid(packed, factor), images)
    assert torch.allclose(packed[0, :, 0, :: 6 // factor], values[:factor, :, 0, 0].t())         # row by row


def test_decoding_enlarges_each_part_of_the_grid_by_itself():
    images = torch.randn(2, 3, 8, 8)
    corner = F.interpolate(images[1:, :, :4, 4:], size=(8, 8), mode="bilinear", align_corners=False)
    assert torch.equal(expand_grid(images, 2)[5:6], corner)


@pytest.mark.parametrize("init", ["real", "balanced", "noise"])
def test_with_a_factor_a_class_is_matched_and_trained_on_as_that_many_images(init):
    syn = start(REAL, 3, init, 1.0, 0, factor=2)
    assert syn.images.shape == (6, 3, 4, 4) and syn.image_labels.tolist() == [0] * 3 + [1] * 3
    assert syn.expanded().shape == (24, 3, 4, 4) and syn.labels.tolist() == [0] * 12 + [1] * 12
    training = syn.as_dataset()
    assert torch.equal(training.images[12:], syn.of_class(1)) and torch.equal(training.labels, syn.labels)
    assert [tensor.shape[0] for tensor in syn.to_list()] == [6, 6]


def test_the_gradient_of_decoded_images_reaches_every_stored_pixel_and_moves_it():
    syn = start(REAL, 2, "real", 1.0, 0, factor=2)
    before = syn.images.detach().clone()
    syn.step([syn.expanded().sum()])
    assert torch.allclose(before - syn.images, torch.full_like(before, 4.0))        # each is enlarged to four pixels


def test_a_balanced_start_balances_the_images_in_the_grids():
    syn = start(REAL, 3, "balanced", 1.0, 0, factor=2)
    rows = ((syn.as_dataset().images[:, 0, 0, 0] * 0.5 + 0.5) * 255).round().long()
    assert torch.equal(REAL.labels[rows], syn.labels) and len(rows.unique()) == len(rows)
    counts = [torch.bincount(REAL.groups[rows][syn.labels == label], minlength=3).tolist() for label in (0, 1)]
    assert sorted(counts[0]) == [3, 4, 5] and counts[0][1] == 3 and counts[1] == [2, 5, 5]


def test_a_grid_needs_as_many_images_as_it_stores():
    with pytest.raises(UserError, match=r"--ipc 11 with --factor 2.*'class0'.*40"):
        start(REAL, 11, "real", 1.0, 0, factor=2)

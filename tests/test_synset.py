"""The start of the synthetic set: random, balanced or noise; and the step that moves it."""

import pytest
import torch

from fairdd.datasets import GroupedImages
from fairdd.errors import UserError
from fairdd.synset import SynSet, start


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
    assert not syn.batch(torch.tensor([0])).requires_grad and syn.of_class(1).requires_grad

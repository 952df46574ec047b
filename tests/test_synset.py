"""The synthetic set: how it is initialized (random, balanced, noise), expanded from grids, and updated."""

import pytest
import torch
import torch.nn.functional as F

from fairdd.core.errors import UserError
from fairdd.datasets.base import GroupedImages
from fairdd.matching.synset import SynSet, expand_grid, init_synthetic, pack_grid


def numbered_images(cells):
    """Return a data set with cells[label][group] images; every pixel of an image is the image's row."""
    pairs = [(y, g) for y, row in enumerate(cells) for g, size in enumerate(row) for _ in range(size)]
    labels, groups = torch.tensor(pairs).t().contiguous()
    images = torch.arange(len(pairs), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()
    names = [tuple(f"{kind}{i}" for i in range(n)) for kind, n in (("class", len(cells)), ("group", len(cells[0])))]
    return GroupedImages(images, labels, groups, *names, (0.5,) * 3, (0.5,) * 3)


def image_rows(images):
    """Return the rows of the real images that these copies were taken from."""
    return ((images.detach() * 0.5 + 0.5) * 255).round().long()[:, 0, 0, 0]


def group_counts(rows, labels, label):
    return torch.bincount(REAL.groups[rows][labels == label], minlength=3).tolist()


REAL = numbered_images([[30, 3, 7], [2, 20, 18]])


def init(ipc, name, seed=0, **options):
    return init_synthetic(REAL, ipc, name, 1.0, seed, **options)


@pytest.mark.parametrize("name", ["real", "balanced"])
def test_initial_images_are_distinct_real_images_of_each_class_in_order(name):
    syn = init(10, name)
    rows = image_rows(syn.images)
    assert syn.labels.tolist() == [0] * 10 + [1] * 10
    assert torch.equal(REAL.labels[rows], syn.labels) and len(set(rows.tolist())) == 20


@pytest.mark.parametrize(("ipc", "expected"), [(9, [[3, 3, 3], [2, None, None]]), (6, [[2, 2, 2], [2, 2, 2]])])
def test_balanced_takes_equally_many_of_every_group_and_fills_up_from_larger_ones(ipc, expected):
    syn = init(ipc, "balanced")
    for label in (0, 1):
        counts = group_counts(image_rows(syn.images), syn.labels, label)
        assert all(number in (None, count) for number, count in zip(expected[label], counts, strict=True))
        assert sum(counts) == ipc and max(counts) - min(c for c in counts if c > 2 or ipc == 6) <= 1


def test_the_remainder_goes_to_a_random_group_not_always_the_first():
    groups = {REAL.groups[image_rows(init(1, "balanced", seed).images)[0]].item() for seed in range(20)}
    assert groups == {0, 1, 2}


def test_real_keeps_the_proportions_of_groups_on_average():
    counts = torch.zeros(3)
    for seed in range(200):
        syn = init(10, "real", seed)
        counts += torch.tensor(group_counts(image_rows(syn.images), syn.labels, 0))
    assert torch.allclose(counts / counts.sum(), torch.tensor([0.75, 0.075, 0.175]), atol=0.03)


def test_noise_is_standard_normal_and_needs_no_real_images():
    syn = init(100, "noise")
    assert len(syn) == 200 and abs(syn.images.mean()) < 0.05 and abs(syn.images.std() - 1) < 0.05


@pytest.mark.parametrize("name", ["real", "balanced", "noise"])
def test_initial_images_depend_on_their_key_alone(name):
    first, again, other = (init(10, name, seed).images for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("name", ["real", "balanced"])
def test_an_ipc_above_the_size_of_a_class_is_refused_with_its_name(name):
    with pytest.raises(UserError, match=r"--ipc 41.*'class0'.*40"):
        init(41, name)


def test_a_step_is_sgd_with_momentum_one_half():
    syn = SynSet(torch.zeros(2, 1, 1, 1), torch.tensor([0, 1]), lr_img=0.1)
    gradient = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)
    for _ in range(2):
        syn.step(syn.expanded(), gradient)
    assert torch.allclose(syn.images, -0.1 * (1 + 1.5) * gradient)


def test_a_step_follows_the_gradient_through_what_was_done_to_the_images():
    syn = SynSet(torch.ones(2, 3, 4, 4).double(), torch.tensor([0, 1]), lr_img=0.1, factor=2)
    images = 5 * syn.expanded().flip(-1)
    gradient = torch.randn_like(images)
    [expected] = torch.autograd.grad((images * gradient).sum(), syn.images, retain_graph=True)
    syn.step(images, gradient)
    assert torch.allclose(syn.images, 1 - 0.1 * expected)


def test_a_restored_set_makes_the_same_next_steps():
    def step(syn, seed):
        images = syn.expanded().square()
        syn.step(images, torch.randn(images.shape, generator=torch.Generator().manual_seed(seed)))

    syn, resumed = init(3, "real", factor=2), init(3, "noise", factor=2)
    for seed in range(2):
        step(syn, seed)
    state = syn.state()
    resumed.restore(state)
    for seed in range(2, 4):
        step(syn, seed)
        step(resumed, seed)
        assert torch.equal(syn.images, resumed.images)
    assert not torch.equal(state["images"], syn.images)         # the state is a copy


def test_training_images_are_detached_from_the_pixels():
    syn = init(2, "real")
    assert syn.expanded().requires_grad and not syn.as_dataset().batch(torch.tensor([0])).requires_grad


def test_a_factor_of_one_changes_nothing():
    plain, same = init(10, "real"), init(10, "real", factor=1)
    assert torch.equal(plain.images, same.images) and same.expanded() is same.images
    assert torch.equal(same.labels, same.image_labels)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_expanding_a_packed_grid_gives_back_images_of_a_single_value_in_order(factor):
    values = torch.randn(5 * factor**2, 3, 1, 1)
    images = values.expand(-1, -1, 12, 6)
    packed = pack_grid(images, factor)
    assert packed.shape == (5, 3, 12, 6) and torch.allclose(expand_grid(packed, factor), images)
    assert torch.allclose(packed[0, :, 0, :: 6 // factor], values[:factor, :, 0, 0].t())         # row by row


def test_each_cell_of_a_grid_is_enlarged_without_its_neighbors():
    images = torch.randn(2, 3, 8, 8)
    corner = F.interpolate(images[1:, :, :4, 4:], size=(8, 8), mode="bilinear", align_corners=False)
    assert torch.equal(expand_grid(images, 2)[5:6], corner)


@pytest.mark.parametrize("name", ["real", "balanced", "noise"])
def test_with_a_factor_four_times_as_many_images_are_matched_and_trained_on_as_stored(name):
    syn = init(3, name, factor=2)
    assert syn.images.shape == (6, 3, 4, 4) and syn.image_labels.tolist() == [0] * 3 + [1] * 3
    assert syn.expanded().shape == (24, 3, 4, 4) and syn.labels.tolist() == [0] * 12 + [1] * 12
    data = syn.as_dataset()
    assert torch.equal(data.images, syn.expanded()) and torch.equal(data.labels, syn.labels)
    assert [tensor.shape[0] for tensor in syn.to_list()] == [6, 6]


def test_the_gradient_of_expanded_images_reaches_every_stored_pixel():
    syn = init(2, "real", factor=2)
    before = syn.images.detach().clone()
    images = syn.expanded()
    syn.step(images, torch.ones_like(images))
    assert torch.allclose(before - syn.images, torch.full_like(before, 4.0))        # each is enlarged to four pixels


def test_a_balanced_initialization_balances_the_images_in_the_grids():
    syn = init(3, "balanced", factor=2)
    rows = image_rows(syn.as_dataset().images)
    assert torch.equal(REAL.labels[rows], syn.labels) and len(rows.unique()) == len(rows)
    counts = [group_counts(rows, syn.labels, label) for label in (0, 1)]
    assert sorted(counts[0]) == [3, 4, 5] and counts[0][1] == 3 and counts[1] == [2, 5, 5]


def test_a_grid_needs_as_many_images_as_it_stores():
    with pytest.raises(UserError, match=r"--ipc 11 with --factor 2.*'class0'.*40"):
        init(11, "real", factor=2)

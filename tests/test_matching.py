"""Targets, losses and pixel gradients against plain transcriptions of the formulas, in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fairdd.matching.gradient import (
    ALIGNMENTS,
    barycenter,
    embedding_loss,
    fairdd,
    frozen_batchnorm,
    gradient_losses,
    match_loss,
    segment_sum,
    vanilla,
)

LABELS = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2])
GROUPS = torch.tensor([0, 0, 0, 1, 2, 1, 1, 1, 0, 2, 2, 2])
SYN_LABELS = torch.arange(3).repeat_interleave(2)


class TinyNet(nn.Module):
    """A convolution, a smooth activation and a linear layer, in float64."""

    def __init__(self):
        super().__init__()
        self.convolution, self.classifier = nn.Conv2d(3, 4, 3), nn.Linear(16, 3)
        self.double()

    def embed(self, images):
        return F.avg_pool2d(torch.tanh(self.convolution(images)), 2).flatten(1)

    def forward(self, images):
        return self.classifier(self.embed(images))


@pytest.fixture
def scene():
    """A network, real images (12, 3, 6, 6) of LABELS and GROUPS, synthetic ones (6, 3, 6, 6) of SYN_LABELS."""
    torch.manual_seed(0)
    return TinyNet(), torch.randn(12, 3, 6, 6).double(), torch.randn(6, 3, 6, 6).double().requires_grad_(True)


def parts_by_hand(align, label):
    """The masks of real images whose means are pulled at, and for the barycenter whose mean of means is."""
    groups = sorted(set(GROUPS[label == LABELS].tolist()))
    return [label == LABELS] if align == "vanilla" else [(label == LABELS) & (g == GROUPS) for g in groups]


def squared_by_hand(difference):
    return (difference**2).sum()


def dm_by_hand(net, real, syn, align, distance=squared_by_hand):
    """Sum over classes of distances, straight from the formulas."""
    loss = 0
    for label in range(3):
        centers = [net.embed(real[mask]).mean(0).detach() for mask in parts_by_hand(align, label)]
        centers = [torch.stack(centers).mean(0)] if align == "barycenter" else centers
        mean = net.embed(syn[label == SYN_LABELS]).mean(0)
        loss = loss + sum(distance(center - mean) for center in centers)
    return loss


def l1_by_hand(net, real, syn, align):
    return dm_by_hand(net, real, syn, align, lambda difference: difference.abs().sum())


def layerwise_by_hand(a, b):
    """1 - cosine, output row by output row, of every parameter that has rows."""
    rows = [(x.reshape(len(x), -1), y.reshape(len(y), -1)) for x, y in zip(a, b, strict=True) if x.ndim > 1]
    return sum(1 - (u @ v) / (u.norm() * v.norm() + 1e-6) for x, y in rows for u, v in zip(x, y, strict=True))


def dc_by_hand(net, real, syn, align):
    """Sum over classes of layer-wise cosine distances of gradients."""
    loss, weights = 0, list(net.parameters())
    for label in range(3):
        def gradient(images, label=label, **how):
            target = torch.full((len(images),), label)
            return torch.autograd.grad(F.cross_entropy(net(images), target), weights, **how)

        centers = [gradient(real[mask]) for mask in parts_by_hand(align, label)]
        if align == "barycenter":
            centers = [[torch.stack(layer).mean(0) for layer in zip(*centers, strict=True)]]
        of_syn = gradient(syn[label == SYN_LABELS], create_graph=True)
        loss = loss + sum(layerwise_by_hand(of_syn, center) for center in centers)
    return loss


def dm(net, real, syn, align, dis_metric="ours"):
    return embedding_loss(net, real, syn, SYN_LABELS, ALIGNMENTS[align](LABELS, GROUPS), dis_metric)


def dm_l1(net, real, syn, align):
    return dm(net, real, syn, align, "l1")


def dc(net, real, syn, align, dis_metric="ours"):
    by_class = [syn[label == SYN_LABELS] for label in range(3)]
    return sum(gradient_losses(net, real, by_class, ALIGNMENTS[align](LABELS, GROUPS), dis_metric))


@pytest.mark.parametrize("align", ALIGNMENTS)
@pytest.mark.parametrize(("ours", "by_hand"), [(dm, dm_by_hand), (dm_l1, l1_by_hand), (dc, dc_by_hand)])
def test_loss_and_pixel_gradient_are_the_formula(scene, ours, by_hand, align):
    net, real, syn = scene
    mine, plain = (method(net, real, syn, align) for method in (ours, by_hand))
    assert torch.isclose(mine, plain, rtol=1e-12)
    my_gradient, plain_gradient = (torch.autograd.grad(loss, syn)[0] for loss in (mine, plain))
    assert (my_gradient - plain_gradient).norm() <= 1e-10 * plain_gradient.norm()


@pytest.mark.parametrize("align", ALIGNMENTS)
@pytest.mark.parametrize("method", [dm, dm_l1, dc])
def test_pixel_gradient_is_the_finite_difference(scene, method, align):
    net, real, syn = scene
    direction = torch.randn_like(syn)
    step = 1e-6
    ahead, behind = (method(net, real, (syn + sign * step * direction), align) for sign in (1, -1))
    slope = (torch.autograd.grad(method(net, real, syn, align), syn)[0] * direction).sum()
    assert torch.isclose((ahead - behind) / (2 * step), slope, rtol=1e-6)


def test_batch_gradient_is_the_count_weighted_mean_of_cells_gradients(scene):
    net, real, _ = scene
    weights, mine = list(net.parameters()), LABELS == 0

    def gradient(mask):
        loss = F.cross_entropy(net(real[mask]), LABELS[mask])
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)])

    cells = [mine & (g == GROUPS) for g in range(3)]
    mixed = sum(mask.sum() * gradient(mask) for mask in cells) / mine.sum()
    assert torch.allclose(mixed, gradient(mine), rtol=1e-12)


def test_under_squared_distance_fairdd_pulls_as_often_as_there_are_groups_towards_the_barycentre(scene):
    net, real, syn = scene
    losses = [dm(net, real, syn, align) for align in ("fairdd", "barycenter")]
    sum_of_pulls, one_pull = (torch.autograd.grad(loss, syn)[0] for loss in losses)
    groups_present = torch.tensor([3, 2, 1]).repeat_interleave(2)
    assert torch.allclose(sum_of_pulls, groups_present.view(-1, 1, 1, 1) * one_pull, rtol=1e-12)


@pytest.mark.parametrize("align", [vanilla, fairdd, barycenter])
def test_weights_sum_to_one_within_a_target(align):
    targets = align(LABELS, GROUPS)
    sums = torch.bincount(targets.owner, targets.weight)
    assert len(sums) == len(targets.classes) and torch.allclose(sums, torch.ones(len(sums)).double())
    assert torch.equal(targets.classes[targets.owner], LABELS)


def test_fairdd_has_a_target_for_every_group_present_and_none_for_an_absent_one():
    assert fairdd(LABELS, GROUPS).classes.tolist() == [0, 0, 0, 1, 1, 2]


def test_with_one_group_all_alignments_are_vanilla():
    for align in (fairdd, barycenter):
        targets, plain = align(LABELS, torch.zeros_like(LABELS)), vanilla(LABELS, None)
        assert torch.equal(targets.owner, plain.owner) and torch.equal(targets.weight, plain.weight)


def test_weighted_sums_of_a_mean_is_the_mean():
    signals, targets = torch.randn(12, 5).double(), fairdd(LABELS, GROUPS)
    sums = segment_sum(signals, targets.owner, targets.weight, 6)
    assert torch.allclose(sums[0], signals[:3].mean(0))


def test_layerwise_cosine_ignores_biases_and_scale():
    gradient = [torch.randn(4, 3, 2, 2), torch.randn(4)]
    other = [3 * gradient[0], -gradient[1]]
    assert match_loss(gradient, other, "ours").abs() < 1e-4
    assert match_loss(gradient, other, "cos") > 1e-3


@pytest.mark.parametrize("metric", ["mse", "cos"])
def test_other_metrics_see_the_whole_gradient_as_one_vector(metric):
    a, b = ([torch.randn(4, 3).double(), torch.randn(4).double()] for _ in range(2))
    u, v = (torch.cat([x.flatten() for x in g]) for g in (a, b))
    plain = {"mse": ((u - v) ** 2).sum(), "cos": 1 - u @ v / (u.norm() * v.norm() + 1e-6)}[metric]
    assert torch.isclose(match_loss(a, b, metric), plain, rtol=1e-12)


def test_a_zero_gradient_gives_a_finite_distance():
    zero = [torch.zeros(2, 3, requires_grad=True)]
    match_loss(zero, [torch.ones(2, 3)]).backward()
    assert zero[0].grad.isfinite().all()


def test_frozen_batch_norm_uses_the_statistics_of_all_classes_and_is_restored():
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm2d(3)).double()
    images = 5 + 2 * torch.randn(12, 3, 6, 6).double()
    with frozen_batchnorm(net, images):
        alone = net(images[:1])
    centered = images - images.mean((0, 2, 3), keepdim=True)
    plain = centered[:1] / (images.var((0, 2, 3), keepdim=True) + net[0].eps).sqrt()
    assert torch.allclose(alone, plain)
    assert net[0].training and net[0].momentum == 0.1

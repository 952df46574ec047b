"""Losses and pixel gradients of embedding and gradient matching against plain transcriptions, in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fairdd.core import parallel
from fairdd.matching.alignment import ALIGNMENTS
from fairdd.matching.embedding import EMBEDDING_DISTANCES, embedding_loss
from fairdd.matching.gradient import GRADIENT_DISTANCES, frozen_batchnorm, gradient_loss, match_loss

LABELS = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2])
GROUPS = torch.tensor([0, 0, 0, 1, 2, 1, 1, 1, 0, 2, 2, 2])
SYN_LABELS = torch.tensor([2, 0, 1, 0, 2, 1])       # mixed: nothing may depend on the order of classes
METHODS = [*(("DM", name) for name in EMBEDDING_DISTANCES), *(("DC", name) for name in GRADIENT_DISTANCES)]
every_method = pytest.mark.parametrize("method", METHODS, ids="-".join)
every_alignment = pytest.mark.parametrize("align", ALIGNMENTS)


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


def make_problem():
    """Return a network, real images (12, 3, 6, 6) of LABELS and GROUPS, synthetic ones (6, 3, 6, 6) of SYN_LABELS."""
    torch.manual_seed(0)
    return TinyNet(), torch.randn(12, 3, 6, 6).double(), torch.randn(6, 3, 6, 6).double().requires_grad_(True)


def loss_and_gradient(method, net, real, syn, targets):
    """Return what the package gives: the losses of classes and the gradient. method: ("DM" or "DC", distance)."""
    kind, name = method
    if kind == "DM":
        return embedding_loss(net, real, syn, SYN_LABELS, targets, EMBEDDING_DISTANCES[name])
    return dc_loss(net, real, syn, SYN_LABELS, targets, GRADIENT_DISTANCES[name])


def dc_loss(net, real, syn, syn_labels, targets, *distance):
    """Return gradient_loss with the images of all classes in one tensor."""
    rows = [(syn_labels == label).nonzero().flatten() for label in syn_labels.unique()]
    losses, gradients = gradient_loss(net, real, [syn[of_class] for of_class in rows], targets, *distance)
    return losses, torch.zeros_like(syn).index_copy_(0, torch.cat(rows), torch.cat(gradients))


def plain_targets(align):
    """Return (class, coefficient, weights (12,) of the real images) of every target, straight from the formulas."""
    targets = []
    for label in range(3):
        in_class = label == LABELS
        masks = [in_class] if align == "vanilla" else [in_class & (g == GROUPS) for g in GROUPS[in_class].unique()]
        weights = [mask / mask.sum().double() for mask in masks]
        weights = [sum(weights) / len(weights)] if align == "barycenter" else weights
        targets += [(label, 1.0, w) for w in weights]
    return targets


def plain_losses(method, net, real, syn, targets):
    """Return the losses of the three classes, as a graph: coefficient * distance, target by target.

    targets: a list of (class, coefficient, weights (12,) of the real images).
    """
    kind, name = method
    features = {"DM": plain_embedding, "DC": plain_gradient}[kind]
    losses = [torch.zeros(()).double() for _ in range(3)]
    for label, coefficient, weights in targets:
        images = syn[label == SYN_LABELS]
        of_syn = features(net, images, torch.ones(len(images)).double() / len(images), label)
        of_real = [x.detach() for x in features(net, real, weights, label)]
        losses[label] = losses[label] + coefficient * PLAIN_DISTANCES[kind, name](of_syn, of_real)
    return torch.stack(losses)


def plain_embedding(net, images, weights, label):
    return [sum(w * net.embed(image[None])[0] for w, image in zip(weights, images, strict=True))]


def plain_gradient(net, images, weights, label):
    target = torch.tensor([label])
    loss = sum(w * F.cross_entropy(net(image[None]), target) for w, image in zip(weights, images, strict=True))
    return torch.autograd.grad(loss, list(net.parameters()), create_graph=True)


def flat(gradient):
    return torch.cat([x.flatten() for x in gradient])


def plain_cosine_distance(u, v):
    return 1 - (u @ v) / (u.norm() * v.norm() + 1e-6)


def plain_layerwise_cosine(a, b):
    """Return the sum of cosine distances, output row by output row, of every parameter that has rows."""
    rows = [(x.reshape(len(x), -1), y.reshape(len(y), -1)) for x, y in zip(a, b, strict=True) if x.ndim > 1]
    return sum(plain_cosine_distance(u, v) for x, y in rows for u, v in zip(x, y, strict=True))


PLAIN_DISTANCES = {
    ("DM", "ours"): lambda a, b: ((a[0] - b[0]) ** 2).sum(),
    ("DM", "l1"): lambda a, b: (a[0] - b[0]).abs().sum(),
    ("DC", "ours"): plain_layerwise_cosine,
    ("DC", "mse"): lambda a, b: ((flat(a) - flat(b)) ** 2).sum(),
    ("DC", "cos"): lambda a, b: plain_cosine_distance(flat(a), flat(b)),
}


def assert_is_formula(method, targets, plain):
    """Assert that losses and gradient of targets are those of the list plain, to 1e-10 of their norms."""
    net, real, syn = make_problem()
    losses, gradient = loss_and_gradient(method, net, real, syn, targets)
    expected = plain_losses(method, net, real, syn, plain)
    [expected_gradient] = torch.autograd.grad(expected.sum(), syn)
    assert not losses.requires_grad and not gradient.requires_grad and gradient.shape == syn.shape
    assert (losses - expected).norm() <= 1e-10 * expected.norm()
    assert (gradient - expected_gradient).norm() <= 1e-10 * expected_gradient.norm()


@every_alignment
@every_method
def test_losses_and_pixel_gradient_are_the_formula(method, align):
    assert_is_formula(method, ALIGNMENTS[align](LABELS, GROUPS), plain_targets(align))


@every_alignment
@every_method
def test_a_class_too_large_for_one_graph_is_matched_in_parts(method, align, monkeypatch):
    monkeypatch.setattr(parallel, "GRAPH_BYTES", 1)
    monkeypatch.setitem(parallel.CHUNK_BYTES, "cpu", 1)         # one image at a time
    assert_is_formula(method, ALIGNMENTS[align](LABELS, GROUPS), plain_targets(align))


@every_alignment
@every_method
def test_pixel_gradient_is_the_finite_difference(method, align):
    net, real, syn = make_problem()
    targets, direction, step = ALIGNMENTS[align](LABELS, GROUPS), torch.randn_like(syn), 1e-6
    ahead, behind = (loss_and_gradient(method, net, real, syn + sign * step * direction, targets)[0].sum()
                     for sign in (1, -1))
    slope = (loss_and_gradient(method, net, real, syn, targets)[1] * direction).sum()
    assert torch.isclose((ahead - behind) / (2 * step), slope, rtol=1e-6)


@every_method
def test_losses_leave_no_gradient_in_pixels_and_weights(method):
    net, real, syn = make_problem()
    loss_and_gradient(method, net, real, syn, ALIGNMENTS["fairdd"](LABELS, GROUPS))
    assert syn.grad is None and all(weight.grad is None for weight in net.parameters())


@every_method
def test_a_class_without_targets_has_no_gradient(method):
    net, real, syn = make_problem()
    rows = LABELS < 2
    _, gradient = loss_and_gradient(method, net, real[rows], syn, ALIGNMENTS["fairdd"](LABELS[rows], GROUPS[rows]))
    is_matched = gradient.flatten(1).abs().sum(1) > 0
    assert torch.equal(is_matched, SYN_LABELS < 2)


def test_batch_gradient_is_the_count_weighted_mean_of_group_gradients():
    net, real, _ = make_problem()
    in_class = LABELS == 0

    def gradient(mask):
        loss = F.cross_entropy(net(real[mask]), LABELS[mask])
        return flat(torch.autograd.grad(loss, list(net.parameters())))

    masks = [in_class & (g == GROUPS) for g in range(3)]
    mixed = sum(mask.sum() * gradient(mask) for mask in masks) / in_class.sum()
    assert torch.allclose(mixed, gradient(in_class), rtol=1e-12)


def test_under_squared_distance_fairdd_is_the_barycenter_times_the_number_of_groups():
    net, real, syn = make_problem()
    fairdd, barycenter = (loss_and_gradient(("DM", "ours"), net, real, syn, ALIGNMENTS[align](LABELS, GROUPS))[1]
                          for align in ("fairdd", "barycenter"))
    groups_present = torch.tensor([3, 2, 1])[SYN_LABELS]
    assert torch.allclose(fairdd, groups_present.view(-1, 1, 1, 1) * barycenter, rtol=1e-12)


def test_layerwise_cosine_ignores_biases_and_scale():
    gradient = [torch.randn(4, 3, 2, 2), torch.randn(4)]
    other = [3 * gradient[0], -gradient[1]]
    assert match_loss(gradient, other, "ours").abs() < 1e-4
    assert match_loss(gradient, other, "cos") > 1e-3


@pytest.mark.parametrize("name", GRADIENT_DISTANCES)
def test_match_loss_is_the_distance_of_its_name(name):
    a, b = ([torch.randn(4, 3).double(), torch.randn(4).double()] for _ in range(2))
    assert torch.isclose(match_loss(a, b, name), PLAIN_DISTANCES["DC", name](a, b), rtol=1e-12)


def test_a_zero_gradient_gives_a_finite_distance():
    zero = [torch.zeros(2, 3, requires_grad=True)]
    match_loss(zero, [torch.ones(2, 3)]).backward()
    assert zero[0].grad.isfinite().all()


def test_frozen_batchnorm_uses_the_statistics_of_all_images_and_is_restored():
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm2d(3)).double()
    images = 5 + 2 * torch.randn(12, 3, 6, 6).double()
    with frozen_batchnorm(net, images):
        output = net(images[:1])
    centered = images - images.mean((0, 2, 3), keepdim=True)
    expected = centered[:1] / (images.var((0, 2, 3), keepdim=True) + net[0].eps).sqrt()
    assert torch.allclose(output, expected)
    assert net[0].training and net[0].momentum == 0.1


@pytest.mark.parametrize("is_first_pass", [True, False])
def test_frozen_batchnorm_is_restored_after_an_exception(is_first_pass):
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(108, 2))
    images = torch.randn(4, 3, 9, 9) if is_first_pass else torch.randn(4, 3, 6, 6)      # 9 x 9 does not fit the linear
    with pytest.raises((RuntimeError, ZeroDivisionError)), frozen_batchnorm(net, images):
        raise ZeroDivisionError
    assert net[0].training and net[0].momentum == 0.1

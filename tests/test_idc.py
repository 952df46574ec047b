"""IDC, DREAM and CAFE: losses and pixel gradients against plain transcriptions in float64, and their parts."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from refusal import refusal
from torch import nn

import main_DC
import main_DM
from fairdd.evaluation.training import train_with_schedule
from fairdd.matching.alignment import ALIGNMENTS
from fairdd.matching.augment import augment, cutmix, draw_composed
from fairdd.matching.clustering import representatives
from fairdd.matching.features import feature_loss, layer_features, level_weights
from fairdd.matching.gradient import CONVOLUTION_DISTANCES, gradient_loss
from fairdd.matching.synset import LabeledImages, SynSet
from fairdd.run.context import evaluation_config

LABELS = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2])
GROUPS = torch.tensor([0, 0, 0, 1, 2, 1, 1, 1, 0, 2, 2, 2])
SYN_LABELS = torch.tensor([0, 0, 1, 1, 2, 2])
every_alignment = pytest.mark.parametrize("align", ALIGNMENTS)


class SmoothNet(nn.Module):
    """Two convolutions with smooth activations and a linear layer, in float64."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.SiLU(), nn.AvgPool2d(2),
                                      nn.Conv2d(4, 5, 3, padding=1), nn.Sigmoid(), nn.AvgPool2d(2))
        self.classifier = nn.Linear(5, 3)
        self.double()

    def embed(self, images):
        return self.features(images).flatten(1)

    def forward(self, images):
        return self.classifier(self.embed(images))


@pytest.fixture
def problem():
    """A network, real images (12, 3, 4, 4) of LABELS and GROUPS, synthetic ones (6, 3, 4, 4) of SYN_LABELS."""
    torch.manual_seed(0)
    return SmoothNet(), torch.randn(12, 3, 4, 4).double(), torch.randn(6, 3, 4, 4).double().requires_grad_(True)


def masks_of(align, label):
    """Return the masks of real images whose means are the targets of a class; for the barycenter their mean is."""
    in_class = label == LABELS
    return [in_class] if align == "vanilla" else [in_class & (g == GROUPS) for g in GROUPS[in_class].unique()]


@every_alignment
@pytest.mark.parametrize("name", CONVOLUTION_DISTANCES)
def test_idc_matches_the_gradients_of_convolutions_alone(problem, align, name):
    net, real, syn = problem
    weights = list(net.parameters())
    power = {"l1": 1, "mse": 2}[name]
    loss = 0
    for label in range(3):
        targets = [torch.autograd.grad(F.cross_entropy(net(real[mask]), LABELS[mask]), weights)
                   for mask in masks_of(align, label)]
        if align == "barycenter":
            targets = [[sum(layer) / len(targets) for layer in zip(*targets, strict=True)]]
        own = syn[label == SYN_LABELS]
        own_loss = F.cross_entropy(net(own), torch.full((2,), label))
        syn_gradient = torch.autograd.grad(own_loss, weights, create_graph=True)
        for target in targets:
            loss = loss + sum((s - t).abs().pow(power).sum()
                              for s, t in zip(syn_gradient, target, strict=True) if s.ndim == 4)
    [expected] = torch.autograd.grad(loss, syn)
    losses, gradients = gradient_loss(net, real, list(syn.split(2)), ALIGNMENTS[align](LABELS, GROUPS),
                                      CONVOLUTION_DISTANCES[name])
    assert losses.sum().item() == pytest.approx(loss.item(), rel=1e-10)
    assert torch.allclose(torch.cat(gradients), expected, rtol=1e-10, atol=1e-14)


def test_one_step_of_all_classes_equals_a_step_of_each_class_after_another():
    num_classes = 3
    args = main_DC.parse(["--method", "IDC", "--lr_img", "0.3", "--ipc", "10"])[1]
    lr, momentum = main_DC.pixel_optimizer(args, num_classes, 32)
    joint, single = (torch.zeros(4).double().requires_grad_() for _ in range(2))
    joint_optimizer = torch.optim.SGD([joint], lr=lr, momentum=momentum)
    single_optimizer = torch.optim.SGD([single], lr=0.3, momentum=0.5)      # one class among the others, as in IDC
    for gradient in torch.randn(5, 4).double():
        joint.grad = gradient
        joint_optimizer.step()
        for step in range(num_classes):         # the steps of other classes: no gradient, but the momentum carries on
            single.grad = gradient if step == 0 else torch.zeros(4).double()
            single_optimizer.step()
        assert torch.allclose(joint, single, rtol=1e-12, atol=1e-14)


def test_the_learning_rate_of_idc_grows_with_ipc_and_area():
    args = main_DC.parse(["--method", "IDC", "--lr_img", "0.3", "--ipc", "20"])[1]
    assert main_DC.pixel_optimizer(args, 1, 64)[0] == pytest.approx(0.3 * 2 * 4)


@every_alignment
def test_cafe_loss_and_gradient_equal_the_formula(problem, align):
    net, real, syn = problem
    real_levels, syn_levels = [layer.detach() for layer in layer_features(net, real)], layer_features(net, syn)
    loss, means = 0, []
    for label in range(3):
        masks = masks_of(align, label)
        for weight, of_real, of_syn in zip([0.1, 1.0, 2.0], real_levels, syn_levels, strict=True):
            targets = [of_real[mask].mean(0) for mask in masks]
            targets = [sum(targets) / len(targets)] if align == "barycenter" else targets
            mean = of_syn[label == SYN_LABELS].mean(0)
            loss = loss + weight * sum((target - mean).square().sum() for target in targets)
        means.append(mean)
    logits = real_levels[-1] @ torch.stack(means).T
    for label in range(3):
        masks = masks_of(align, label)
        for mask in masks:
            count = (label == LABELS).sum().item() / (len(masks) * mask.sum().item())
            loss = loss + 0.01 * count * F.cross_entropy(logits[mask], LABELS[mask], reduction="sum")
    [expected] = torch.autograd.grad(loss, syn)
    losses, gradient = feature_loss(net, real, syn, SYN_LABELS, ALIGNMENTS[align](LABELS, GROUPS), LABELS)
    assert losses.sum().item() == pytest.approx(loss.item(), rel=1e-10)
    assert torch.allclose(gradient, expected, rtol=1e-10, atol=1e-14)


def test_deep_levels_of_cafe_weigh_most():
    assert level_weights(4) == [0.1, 0.1, 1.0, 2.0]


def test_composed_augmentation_applies_color_one_other_operation_and_cutout():
    stages = draw_composed("color_crop_cutout_flip_scale_rotate", 5, torch.Generator().manual_seed(0))
    assert [stage.names for stage in stages] == [("flip",), ("color",), ("crop", "scale", "rotate"), ("cutout",)]
    images = torch.randn(5, 3, 8, 8)
    expected = images
    for stage in stages:
        expected = augment(expected, stage)
    assert torch.equal(augment(images, stages), expected) and draw_composed("none", 3) == ()


def test_cutmix_keeps_the_area_of_the_own_label():
    images = torch.arange(4.0)[:, None, None, None].expand(4, 1, 10, 10)
    for seed in range(20):
        mixed, other, shares = cutmix(images, torch.arange(4), 1.0, torch.Generator().manual_seed(seed))
        own = (mixed == images).float().mean((1, 2, 3))
        same = other == torch.arange(4)
        assert torch.allclose(own[~same], shares[~same])
        assert all(set(mixed[k].unique().tolist()) <= {k, other[k].item()} for k in range(4))


class Points:
    """Labeled points in a plane: two clusters in each of two groups, the second group small."""

    labels, groups = torch.zeros(44, dtype=torch.long), torch.tensor([0] * 40 + [1] * 4)
    num_groups = 2
    points = torch.cat([torch.randn(20, 2, generator=torch.Generator().manual_seed(0)) * 0.1 + offset
                        for offset in (torch.tensor([0.0, 0.0]), torch.tensor([9.0, 0.0]))]
                       + [torch.tensor([[0.0, 9.0], [0.1, 9.0], [9.0, 9.0], [9.1, 9.0]])])


def test_representatives_are_the_images_nearest_to_the_cluster_centers_of_each_group():
    rows = representatives(Points, Points.points.__getitem__, 0, 4, True, "key")
    corners = {tuple((Points.points[row] / 9).round().int().tolist()) for row in rows.tolist()}
    assert corners == {(0, 0), (1, 0), (0, 1), (1, 1)} and Points.groups[rows].tolist() == [0, 0, 1, 1]
    for start in (0, 20):       # the clusters of the large group: its representative is one of the most central images
        cluster = Points.points[start : start + 20]
        central = (cluster - cluster.mean(0)).norm(dim=1).argsort()[:5] + start
        assert set(central.tolist()) & set(rows.tolist())
    again = representatives(Points, Points.points.__getitem__, 0, 4, True, "key")
    assert torch.equal(rows, again)


def test_a_cell_smaller_than_its_clusters_is_taken_whole():
    rows = representatives(Points, Points.points.__getitem__, 0, 20, True, "key")
    assert sorted(rows[Points.groups[rows] == 1].tolist()) == [40, 41, 42, 43] and len(rows) == 20


def test_pixels_in_the_unit_range_are_normalized_for_networks_and_files():
    images = torch.randn(2, 3, 4, 4)
    syn = SynSet(images, torch.arange(2), 0.1, normalization=((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))
    assert torch.allclose(syn.expanded(), images, atol=1e-6) and torch.allclose(syn.to_list()[0], images, atol=1e-6)
    syn.clamp()
    assert syn.images.min() >= 0 and syn.images.max() <= 1


SMALL = ["--num_eval", "1", "--epoch_eval_train", "1", "--ipc", "2", "--batch_real", "20", "--model", "ConvNetD1W32",
         "--im_size", "8", "--Iteration", "2"]
RUNS = {
    "IDC": (main_DC, ["--method", "IDC", "--pixel_steps", "3", "--n_data", "20"]),
    "IDC factor": (main_DC, ["--method", "IDC", "--pixel_steps", "2", "--n_data", "20", "--factor", "2"]),
    "DREAM": (main_DC, ["--method", "DREAM", "--pixel_steps", "3", "--n_data", "20", "--cluster_every", "2"]),
    "CAFE": (main_DM, ["--method", "CAFE", "--max_steps", "3", "--max_epochs", "2"]),
}


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("align", ["vanilla", "fairdd"])
def test_the_same_command_gives_the_same_bytes(tmp_path, name, align):
    entry, flags = RUNS[name]
    for folder in ("a", "b"):
        entry.main([*SMALL, *flags, "--align", align, "--save_path", str(tmp_path / folder)])
    first, second = ((tmp_path / folder / "synthetic.pt").read_bytes() for folder in ("a", "b"))
    images = torch.load(tmp_path / "a" / "synthetic.pt", weights_only=True)["data"][0][0]
    assert first == second and images.isfinite().all()


def test_the_recipe_of_idc_trains_in_small_mixed_batches_and_drops_the_rate_late():
    args = main_DC.parse(["--method", "IDC", "--eval_recipe", "idc", "--epoch_eval_train", "30"])[1]
    config = evaluation_config(args, "ConvNet")
    assert (config.batch_size, config.cutmix, config.schedule, config.epochs) == (64, 0.5, "idc", 30)
    assert config.strategy == "color_crop_scale_rotate"         # digits are not flipped, and CutMix replaces cutout
    net, rates = nn.Linear(2, 2), []
    data = LabeledImages(torch.zeros(4, 2), torch.zeros(4, dtype=torch.long))
    config = replace(config, strategy="none", cutmix=0.0)
    step = torch.optim.SGD.step

    def recorded_step(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", recorded_step)
        train_with_schedule(net, data, config, torch.Generator())
    assert rates == pytest.approx([0.01] * 20 + [0.002] * 5 + [0.0004] * 5)


def test_every_method_is_evaluated_alike_unless_told_otherwise():
    dm = evaluation_config(main_DM.parse(["--dataset", "CelebA"])[1], "ConvNet")
    for entry, name in ((main_DC, "IDC"), (main_DC, "DREAM"), (main_DM, "CAFE")):
        assert evaluation_config(entry.parse(["--dataset", "CelebA", "--method", name])[1], "ConvNet") == dm


@pytest.mark.parametrize(("entry", "flags", "message"), [
    (main_DC, ["--method", "DREAM", "--FairDD", "--batch_real", "9"], "--batch_real must be at least 10"),
    (main_DC, ["--method", "IDC", "--FairDD", "--batch_real", "9"], "--batch_real must be at least 10"),
    (main_DC, ["--method", "IDC", "--factor", "3"], "--factor 3 does not divide"),
    (main_DC, ["--method", "IDC", "--outer_loop", "3"], "--outer_loop is not a flag of --method IDC"),
    (main_DC, ["--method", "IDC", "--model", "MLP"], "--model MLP has none"),
    (main_DC, ["--method", "IDC", "--cluster_every", "3"], "--cluster_every is not a flag of --method IDC"),
    (main_DC, ["--n_data", "3"], "--n_data is not a flag of --method DC"),
    (main_DC, ["--method", "DREAM", "--dis_metric", "cos"], "--dis_metric cos is not supported by DREAM"),
    (main_DM, ["--method", "CAFE", "--warmup_epochs", "3"], "--warmup_epochs is not a flag of --method CAFE"),
    (main_DM, ["--watch", "3"], "--watch is not a flag of --method DM"),
    (main_DC, ["--method", "DREAM", "--ipc", "200"], "needs more images than class"),
    (main_DC, ["--method", "DREAM", "--batch_real", "200"], "has only 127 images"),
])
def test_what_cannot_work_is_refused_before_the_first_iteration(capsys, tmp_path, entry, flags, message):
    assert message in refusal(capsys, entry.main, [*flags, "--save_path", str(tmp_path / "run")])


@pytest.mark.parametrize("align", ["vanilla", "fairdd"])
def test_vanilla_is_as_published_and_fairdd_balances_batches_and_training(align):
    args = main_DC.parse(["--method", "IDC", "--dataset", "CIFAR10_S", "--align", align])[1]
    expected = (False, "real") if align == "vanilla" else (True, "balanced")
    assert (args.group_balance, args.train_net) == expected and args.dis_metric == "mse" and args.n_data == 2000
    args = main_DC.parse(["--method", "IDC", "--align", align, "--no-group_balance"])[1]
    assert not args.group_balance


@pytest.mark.parametrize(("entry", "flags", "is_said"), [
    (main_DC, ["--method", "DREAM", "--cluster", "class"], True),
    (main_DC, ["--method", "DREAM", "--cluster", "cell"], False),
    (main_DC, ["--method", "IDC", "--cluster", "class"], False),
    (main_DM, ["--init", "kmeans", "--cluster", "class"], True),
])
def test_a_run_says_that_large_cells_are_subsampled_for_clustering(tmp_path, entry, flags, is_said):
    entry.main([*SMALL, *flags, "--Iteration", "0", "--max_clustered", "125", "--save_path", str(tmp_path / "run")])
    assert ("125 random ones are clustered" in (tmp_path / "run" / "log.txt").read_text()) == is_said

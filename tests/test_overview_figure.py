"""The overview figure is computed and reproducible, and the minima it shows are those of the formulas."""

import io

import pytest
import torch
from PIL import Image

from docs.make_overview_figure import DPI, HEIGHT, WIDTH, distill_class, make_figure, make_scene


@pytest.fixture(scope="module")
def scene():
    return make_scene()


def group_means(scene):
    groups = scene.real.groups
    return torch.stack([scene.embeddings[groups == group].mean(0) for group in sorted(set(groups.tolist()))])


def test_the_figure_has_the_requested_size(tmp_path):
    path = tmp_path / "method.png"
    make_figure(steps=1).savefig(path)
    with Image.open(path) as picture:
        picture.load()
    assert picture.size == (round(WIDTH * DPI), round(HEIGHT * DPI))
    assert path.stat().st_size < 300_000


def test_the_figure_is_the_same_when_drawn_twice():
    first, second = io.BytesIO(), io.BytesIO()
    make_figure(steps=1).savefig(first)
    make_figure(steps=1).savefig(second)
    assert first.getvalue() == second.getvalue()


def test_the_class_shown_has_a_dominant_group(scene):
    sizes = scene.real.counts()
    assert sizes.shape[1] == 1 and sizes.max() > 0.8 * sizes.sum()


def test_fairdds_minimum_is_the_mean_of_the_group_means_whatever_their_sizes(scene):
    torch.testing.assert_close(scene.targets("fairdd"), group_means(scene))
    torch.testing.assert_close(scene.minimum("fairdd"), group_means(scene).mean(0))


def test_vanillas_minimum_is_the_mean_of_the_images(scene):
    torch.testing.assert_close(scene.minimum("vanilla"), scene.embeddings.mean(0))


@pytest.mark.parametrize("align", ["vanilla", "fairdd"])
def test_the_group_shares_reproduce_the_minimum(scene, align):
    shares = scene.group_shares(align)[scene.real.groups.unique()]
    torch.testing.assert_close(shares @ group_means(scene), scene.minimum(align))


def test_the_projection_keeps_the_mean_of_the_group_means_at_the_origin(scene):
    star = scene.project(scene.minimum("fairdd"))
    assert star == pytest.approx(scene.project(group_means(scene)).mean(0), abs=1e-9)
    assert star == pytest.approx([0, 0], abs=1e-9)


def test_fairdd_moves_the_synthetic_mean_towards_the_mean_of_the_group_means_and_vanilla_does_not(scene):
    def distances(align):       # at the start and after ten steps
        path = distill_class(scene, align, 10)[1]
        return (path[[0, -1]] - scene.minimum("fairdd")).norm(dim=1)

    vanilla, fairdd = distances("vanilla"), distances("fairdd")
    assert vanilla[0] == fairdd[0]
    assert fairdd[1] < 0.8 * fairdd[0] < vanilla[1]

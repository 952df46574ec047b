"""The overview figure is computed: the same pixels each time, and its minima are what the formulas say."""

import io

import pytest
import torch
from PIL import Image

from docs.make_overview_figure import DPI, HEIGHT, WIDTH, main_figure, pull, set_scene


@pytest.fixture(scope="module")
def scene():
    return set_scene()


def centres_by_hand(scene):
    groups = scene.real.groups
    return torch.stack([scene.signals[groups == group].mean(0) for group in sorted(set(groups.tolist()))])


def test_the_figure_is_a_picture_of_the_size_asked_for(tmp_path):
    path = tmp_path / "method.png"
    main_figure(steps=1).savefig(path)
    with Image.open(path) as picture:
        picture.load()
    assert picture.size == (round(WIDTH * DPI), round(HEIGHT * DPI))
    assert path.stat().st_size < 300_000


def test_drawn_twice_it_is_the_same_picture():
    first, second = io.BytesIO(), io.BytesIO()
    main_figure(steps=1).savefig(first)
    main_figure(steps=1).savefig(second)
    assert first.getvalue() == second.getvalue()


def test_one_group_dominates_the_class_shown(scene):
    sizes = scene.real.counts()
    assert sizes.shape[1] == 1 and sizes.max() > 0.8 * sizes.sum()


def test_fairdds_minimum_is_the_mean_of_the_centres_whatever_their_sizes(scene):
    torch.testing.assert_close(scene.targets("fairdd"), centres_by_hand(scene))
    torch.testing.assert_close(scene.minimum("fairdd"), centres_by_hand(scene).mean(0))


def test_vanillas_minimum_is_the_mean_of_the_images(scene):
    torch.testing.assert_close(scene.minimum("vanilla"), scene.signals.mean(0))


@pytest.mark.parametrize("align", ["vanilla", "fairdd"])
def test_the_shares_shown_make_the_minimum(scene, align):
    shares = scene.shares(align)[scene.real.groups.unique()]
    torch.testing.assert_close(shares @ centres_by_hand(scene), scene.minimum(align))


def test_the_view_keeps_means_where_they_belong(scene):
    """A projection is linear: the star lies at the mean of the centers in the picture too, which is its origin."""
    star = scene.project(scene.minimum("fairdd"))
    assert star == pytest.approx(scene.project(centres_by_hand(scene)).mean(0), abs=1e-9)
    assert star == pytest.approx([0, 0], abs=1e-9)


def test_fairdd_takes_the_synthetic_mean_out_of_the_majority(scene):
    """After some steps it is nearer to the mean of the centers than before; vanilla's stays with the majority."""
    def far(align):
        path = pull(scene, align, 10)[1]
        return (path[[0, -1]] - scene.minimum("fairdd")).norm(dim=1)

    vanilla, fairdd = far("vanilla"), far("fairdd")
    assert vanilla[0] == fairdd[0]
    assert fairdd[1] < 0.8 * fairdd[0] < vanilla[1]

"""Draw the overview figure: one target per class (vanilla) beside one target per group (FairDD).

    python -m docs.make_overview_figure docs/method.png

Everything in it is computed: the images are one class of the embedded data set, the points are their embeddings by one
random network, and the synthetic images are distilled as main_DM.py does, without augmentation.
"""

import sys
from dataclasses import dataclass, replace

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor, nn

from fairdd.core.rng import seeded
from fairdd.datasets import get_dataset
from fairdd.datasets.base import GroupedImages, denormalize
from fairdd.datasets.colored import PALETTE
from fairdd.matching.alignment import ALIGNMENTS, segment_sum
from fairdd.matching.embedding import embedding_loss
from fairdd.matching.synset import init_synthetic

CLASS, IPC, LR_IMG, STEPS = 5, 10, 2.0, 120     # cyan fives; every step uses a new random network
INIT_KEY = ("figure", 1)
VIEW_KEY = ("figure", "look", 164)              # chosen from 500 networks: its projection keeps the group means apart
WIDTH, HEIGHT, DPI = 9.0, 5.2, 200              # inches, like all positions, which count from the bottom left
LEFT = {"real": 0.1, "vanilla": 3.2, "fairdd": 6.15}
PLOT_SIDE, PLOT_BOTTOM = 2.75, 1.6
INK, GRAY, BACKGROUND = "#1a1a1a", "#5a5a5a", "#f5f5f5"
STYLE = {"font.size": 9, "text.color": INK, "axes.edgecolor": "#b8b8b8", "mathtext.fontset": "cm"}
IMAGE = dict(marker="o", ms=3.8, mec=INK, mew=0.4, ls="none", color="white", label=r"image, $\phi(x)$")
CENTER = dict(marker="D", ms=7, mec=INK, mew=1.2, ls="none", color="white", label="group center $c_g$")
MEAN = dict(marker="o", ms=7.5, mec="white", mew=1, lw=2.2, color=INK, label="mean $s$ of $S$, its path")
MINIMUM = dict(marker="*", ms=16, mec="white", mew=0.9, ls="none", color=INK, label="minimum of the loss")
ARROW = dict(arrowstyle="-|>", color=GRAY, linewidth=1.1, shrinkA=3, shrinkB=5)
TITLE = {"vanilla": "Vanilla: one target per class", "fairdd": "FairDD: one target per group"}
LOSS = {"vanilla": r"$\Vert\,\bar{\phi} - s\,\Vert^2$,   ★ $=\,\bar{\phi}\,=\,\sum_g\;\frac{n_g}{n}\,c_g$",
        "fairdd": r"$\sum_g\;\Vert\,c_g - s\,\Vert^2$,   ★ $=\,\frac{1}{G}\,\sum_g\;c_g$"}
ANNOTATION = {"vanilla": ("mean of images:\n{:.0%} majority", (-65, -20)),     # offset from the star in points
              "fairdd": ("mean of centers:\n{:.0%} each group", (38, 64))}
NOTE = (r"$\phi(x)$: here the embedding by a random network (DM); for DC, the gradient of the loss" "\n"
        "axes: the first two principal components of the group centers")


class RandomConvNet(nn.Sequential):
    """Three blocks of width 32 without a classifier; the weights are drawn from a key. (B, 3, H, W) -> (B, D)"""

    def __init__(self, *key):
        layers = []
        with seeded(*key):
            for channels in (3, 32, 32):
                layers += [nn.Conv2d(channels, 32, 3, padding=1), nn.GroupNorm(32, 32), nn.ReLU(), nn.AvgPool2d(2)]
        super().__init__(*layers, nn.Flatten())
        self.requires_grad_(False)

    embed = nn.Sequential.__call__


@dataclass(frozen=True)
class Scene:
    """The images of one class, the network that embeds them for the plots, and their embeddings (N, D) float64."""

    real: GroupedImages
    net: RandomConvNet
    embeddings: Tensor

    def targets(self, align: str) -> Tensor:
        """Return the targets of the class under an alignment. (T, D)"""
        return segment_sum(self.embeddings, ALIGNMENTS[align](self.real.labels, self.real.groups))

    def minimum(self, align: str) -> Tensor:
        """Return the minimizer of the summed squared distances to the targets, which is their mean. (D,)"""
        return self.targets(align).mean(0)

    def group_shares(self, align: str) -> Tensor:
        """Return the share of each group in the minimizer, 0 for a group without images. (G,)"""
        targets = ALIGNMENTS[align](self.real.labels, self.real.groups)
        return torch.bincount(self.real.groups[targets.images], targets.weights) / len(targets)

    def project(self, embeddings: Tensor) -> np.ndarray:
        """Project onto the first two principal components of the group means, centered at their mean. (N, D) -> (N, 2)

        A single embedding (D,) gives (2,).
        """
        centers, origin = self.targets("fairdd"), self.minimum("fairdd")
        axes = torch.linalg.svd(centers - origin, full_matrices=False)[2][:2].T
        return ((embeddings - origin) @ (axes * axes.sum(0).sign())).numpy()    # the SVD leaves the signs open


def make_scene() -> Scene:
    """Return the scene of CLASS of the embedded data set."""
    data = get_dataset("Colored_Digits").train
    rows = data.labels == CLASS
    real = replace(data, images=data.images[rows], labels=torch.zeros_like(data.labels[rows]),
                   groups=data.groups[rows], class_names=(data.class_names[CLASS],))
    net = RandomConvNet(*VIEW_KEY)
    return Scene(real, net, net.embed(real.batch(torch.arange(len(real)))).double())


def distill_class(scene: Scene, align: str, steps: int) -> tuple[Tensor, Tensor]:
    """Return the synthetic images as uint8 (IPC, 3, H, W), and the path of their mean embedding (steps + 1, D)."""
    real, path = scene.real, []
    syn = init_synthetic(real, IPC, "real", LR_IMG, *INIT_KEY)
    targets, images = ALIGNMENTS[align](real.labels, real.groups), real.batch(torch.arange(len(real)))
    for step in range(steps + 1):
        path.append(scene.net.embed(syn.images.detach()).double().mean(0))
        if step < steps:
            _, gradient = embedding_loss(RandomConvNet("figure", step), images, syn.images, syn.labels, targets)
            syn.step(syn.images, gradient)
    pixels = 255 * denormalize(syn.images.detach(), real.mean, real.std)
    return pixels.round().byte(), torch.stack(path)


def make_figure(steps: int = STEPS) -> Figure:
    """Return the whole figure, with the synthetic images after this number of steps."""
    scene = make_scene()
    with rc_context(STYLE):
        fig = Figure((WIDTH, HEIGHT), dpi=DPI, facecolor="white")
        draw_real(fig, scene.real)
        initial, _ = distill_class(scene, "vanilla", 0)
        draw_synthetic(fig, LEFT["real"], "Synthetic set $S$: random real images", initial)
        add_text(fig, 3.0, 3.1, r"$\overset{\phi}{\longrightarrow}$", size=15, ha="center")
        for align in TITLE:
            draw_column(fig, scene, align, steps)
        draw_legend(fig)
    return fig


def draw_real(fig: Figure, real: GroupedImages) -> None:
    """Draw all images of the class; then one row per group: its name, its first images, its size."""
    left, sizes = LEFT["real"], real.counts()[:, 0].tolist()
    add_text(fig, left, HEIGHT - 0.2, "Real set $T$", size=11, weight="bold")
    add_text(fig, left, HEIGHT - 0.52, f"all {len(real)} images of class “{real.class_names[0]}”")
    draw_mosaic(fig, real.images, (left, HEIGHT - 0.7), columns=17, zoom=2)
    add_text(fig, left + 1.36, 2.95, "grouped by protected attribute", ha="center")
    for row, group in enumerate(real.groups.unique().tolist()):
        top = 2.82 - 0.2 * row
        add_text(fig, left + 0.78, top - 0.085, real.group_names[group], ha="right")
        draw_mosaic(fig, real.images[real.groups == group][:7], (left + 0.86, top), columns=7, zoom=2)
        add_text(fig, left + 2.16, top - 0.085, "…" if sizes[group] > 7 else "")
        add_text(fig, left + 2.72, top - 0.085, str(sizes[group]), ha="right", weight="bold")


def draw_column(fig: Figure, scene: Scene, align: str, steps: int) -> None:
    """Draw an alignment: its loss, its targets among the embeddings, and the synthetic images at the end."""
    add_text(fig, LEFT[align], HEIGHT - 0.2, TITLE[align], size=11, weight="bold")
    add_text(fig, LEFT[align], HEIGHT - 0.58, LOSS[align], size=12)
    pixels, path = distill_class(scene, align, steps)
    draw_synthetic(fig, LEFT[align], f"$S$ after {steps} steps", pixels)
    axes = fig.add_axes((LEFT[align] / WIDTH, PLOT_BOTTOM / HEIGHT, PLOT_SIDE / WIDTH, PLOT_SIDE / HEIGHT))
    draw_embeddings(axes, scene)
    draw_targets_and_path(axes, scene, align, scene.project(path))


def draw_embeddings(axes: Axes, scene: Scene) -> None:
    """Draw the embedding of every real image and the mean of every group."""
    points, colors = scene.project(scene.embeddings), PALETTE[scene.real.groups] / 255
    axes.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim", facecolor=BACKGROUND)
    axes.scatter(*points.T, s=14, c=colors, edgecolors=INK, linewidths=0.4, zorder=2)
    for center, group in zip(scene.project(scene.targets("fairdd")), scene.real.groups.unique(), strict=True):
        axes.plot(*center, **CENTER | {"color": PALETTE[group] / 255}, zorder=4)


def draw_targets_and_path(axes: Axes, scene: Scene, align: str, path: np.ndarray) -> None:
    """Draw an arrow to every target, the path of the synthetic mean (steps + 1, 2), and the minimum of the loss."""
    for target in scene.project(scene.targets(align)):
        axes.annotate("", target, path[0], arrowprops=ARROW, zorder=3)
    axes.plot(*path.T, color=INK, linewidth=2.2, zorder=4)
    axes.plot(*path[0], **MEAN, zorder=5)
    (text, offset), star = ANNOTATION[align], scene.project(scene.minimum(align))
    axes.plot(*star, **MINIMUM, zorder=6)
    share = scene.group_shares(align).max()
    axes.annotate(text.format(share), star, offset, textcoords="offset points", ha="center")


def draw_synthetic(fig: Figure, left: float, title: str, pixels: Tensor) -> None:
    add_text(fig, left, 0.49, title)
    draw_mosaic(fig, pixels, (left, 0.34), columns=IPC, zoom=3)


def draw_legend(fig: Figure) -> None:
    handles = [Line2D([], [], **style) for style in (IMAGE, CENTER, MEAN, MINIMUM)]
    middle = (LEFT["vanilla"] + LEFT["fairdd"] + PLOT_SIDE) / 2
    fig.legend(handles=handles, ncols=4, frameon=False, loc="center", handletextpad=0.4, columnspacing=1.0,
               handlelength=1.4, bbox_to_anchor=(middle / WIDTH, (PLOT_BOTTOM - 0.2) / HEIGHT))
    add_text(fig, middle, PLOT_BOTTOM - 0.6, NOTE, ha="center", color=GRAY, linespacing=1.4)


def draw_mosaic(fig: Figure, images: Tensor, top_left: tuple[float, float], columns: int, zoom: int) -> None:
    """Draw images (N, 3, H, W) uint8 in rows with white lines between them, each pixel zoom x zoom pixels."""
    tiles = images.permute(0, 2, 3, 1).numpy().repeat(zoom, 1).repeat(zoom, 2)
    tiles = np.pad(tiles, ((0, -len(tiles) % columns), (1, 1), (1, 1), (0, 0)), constant_values=255)
    rows = [np.concatenate(list(row), 1) for row in tiles.reshape(-1, columns, *tiles.shape[1:])]
    left, top = (round(DPI * inches) for inches in top_left)
    fig.figimage(np.concatenate(rows), left, top - sum(map(len, rows)), origin="upper")


def add_text(fig: Figure, x: float, y: float, text: str, **style) -> None:
    fig.text(x / WIDTH, y / HEIGHT, text, **{"va": "center"} | style)


if __name__ == "__main__":
    torch.set_num_threads(1)
    make_figure().savefig(sys.argv[1] if sys.argv[1:] else "docs/method.png")

"""The overview figure: where one target per class lies, and where FairDD's targets pull instead.

    python -m fairdd.figures docs/method.png

Nothing in it is sketched: the images are one class of the embedded data set, the points are their embeddings by one
random network, and the synthetic images are moved by `matching` and `synset`, as main_DM.py does (unaugmented).
"""

import sys
from dataclasses import dataclass, replace

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import nn

from fairdd.core.rng import seeded
from fairdd.datasets import GroupedImages, denormalize, get_dataset
from fairdd.datasets.colored import PALETTE
from fairdd.matching.gradient import ALIGNMENTS, embedding_loss, segment_sum
from fairdd.matching.synset import init_synthetic

CLASS, IPC, LR_IMG, STEPS = 5, 10, 2.0, 120     # cyan fives, pulled with a new network at every step
START, LOOK = ("figure", 1), ("figure", "look", 164)    # of 500 networks, one whose view keeps the centers apart
WIDTH, HEIGHT, DPI = 9.0, 5.2, 200              # inches, as are all places, from the bottom left
LEFT = {"real": 0.1, "vanilla": 3.2, "fairdd": 6.15}
PANEL, PANEL_FOOT = 2.75, 1.6
INK, SOFT, PAPER = "#1a1a1a", "#5a5a5a", "#f5f5f5"
STYLE = {"font.size": 9, "text.color": INK, "axes.edgecolor": "#b8b8b8", "mathtext.fontset": "cm"}
IMAGE = dict(marker="o", ms=3.8, mec=INK, mew=0.4, ls="none", color="white", label=r"image, $\phi(x)$")
CENTRE = dict(marker="D", ms=7, mec=INK, mew=1.2, ls="none", color="white", label="group center $c_g$")
MEAN = dict(marker="o", ms=7.5, mec="white", mew=1, lw=2.2, color=INK, label="mean $s$ of $S$, its path")
MINIMUM = dict(marker="*", ms=16, mec="white", mew=0.9, ls="none", color=INK, label="minimum of the loss")
ARROW = dict(arrowstyle="-|>", color=SOFT, linewidth=1.1, shrinkA=3, shrinkB=5)
TITLE = {"vanilla": "Vanilla: one target per class", "fairdd": "FairDD: one target per group"}
LOSS = {"vanilla": r"$\Vert\,\bar{\phi} - s\,\Vert^2$,   ★ $=\,\bar{\phi}\,=\,\sum_g\;\frac{n_g}{n}\,c_g$",
        "fairdd": r"$\sum_g\;\Vert\,c_g - s\,\Vert^2$,   ★ $=\,\frac{1}{G}\,\sum_g\;c_g$"}
REMARK = {"vanilla": ("mean of images:\n{:.0%} majority", (-65, -20)),      # and where: points from the star
          "fairdd": ("mean of centers:\n{:.0%} each group", (38, 28))}
NOTE = (r"$\phi(x)$: here the embedding by a random network (DM); for DC, the gradient of the loss" "\n"
        "plane: the first two principal components of the group centers")


class Embedding(nn.Sequential):
    """A random ConvNet: three blocks of width 32, no classifier; its weights belong to a key. (B, 3, H, W) -> (B, D)"""

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
    """The images of one class, the network that looks at them, and what it sees: a signal of each. (N, D) float64"""

    real: GroupedImages
    look: Embedding
    signals: torch.Tensor

    def targets(self, align):
        """The targets that an alignment makes of the class. -> (T, D)"""
        targets = ALIGNMENTS[align](self.real.labels, self.real.groups)
        return segment_sum(self.signals, targets.owner, targets.weight, len(targets.classes))

    def minimum(self, align):
        """Where the summed squared distance to these targets is least: at their plain mean. -> (D,)"""
        return self.targets(align).mean(0)

    def shares(self, align):
        """How much of this minimum each group makes. -> (G,), 0 for a group that is not there"""
        targets = ALIGNMENTS[align](self.real.labels, self.real.groups)
        return torch.bincount(self.real.groups, targets.weight) / len(targets.classes)

    def project(self, signals):
        """On the plane of the centers' first two principal components, its origin at their mean. (., D) -> (., 2)"""
        centers, origin = self.targets("fairdd"), self.minimum("fairdd")
        plane = torch.linalg.svd(centers - origin, full_matrices=False)[2][:2].T
        return ((signals - origin) @ (plane * plane.sum(0).sign())).numpy()     # the sign is the solver's whim


def set_scene():
    """One class of the embedded data set as a data set of its own, seen by one network. -> Scene"""
    data = get_dataset("Colored_Digits").train
    rows = data.labels == CLASS
    real = replace(data, images=data.images[rows], labels=torch.zeros_like(data.labels[rows]),
                   groups=data.groups[rows], class_names=(data.class_names[CLASS],))
    look = Embedding(*LOOK)
    return Scene(real, look, look.embed(real.batch(torch.arange(len(real)))).double())


def pull(scene, align, steps):
    """Distill the class. -> the synthetic images as uint8 pixels, their mean signal's way (steps + 1, D)"""
    real, path = scene.real, []
    syn = init_synthetic(real, IPC, "real", LR_IMG, *START)
    targets, images = ALIGNMENTS[align](real.labels, real.groups), real.batch(torch.arange(len(real)))
    for step in range(steps + 1):
        path.append(scene.look.embed(syn.images.detach()).double().mean(0))
        if step < steps:
            syn.step([embedding_loss(Embedding("figure", step), images, syn.images, syn.labels, targets)])
    pixels = 255 * denormalize(syn.images.detach(), real.mean, real.std)
    return pixels.round().byte(), torch.stack(path)


def main_figure(steps=STEPS):
    """The whole figure, with the synthetic images after so many steps. -> matplotlib Figure"""
    scene = set_scene()
    with rc_context(STYLE):
        figure = Figure((WIDTH, HEIGHT), dpi=DPI, facecolor="white")
        draw_real(figure, scene.real)
        draw_synthetic(figure, LEFT["real"], "Synthetic set $S$: random real images", pull(scene, "vanilla", 0)[0])
        write(figure, 3.0, 3.1, r"$\overset{\phi}{\longrightarrow}$", size=15, ha="center")
        for align in TITLE:
            draw_column(figure, scene, align, steps)
        draw_legend(figure)
    return figure


def draw_real(figure, real):
    """All images of the class as they come; then a row for each group: its name, its first images, its size."""
    left, sizes = LEFT["real"], real.counts()[:, 0].tolist()
    write(figure, left, HEIGHT - 0.2, "Real set $T$", size=11, weight="bold")
    write(figure, left, HEIGHT - 0.52, f"all {len(real)} images of class “{real.class_names[0]}”")
    draw_mosaic(figure, real.images, (left, HEIGHT - 0.7), 16, 2)
    write(figure, left + 1.36, 2.95, "grouped by protected attribute", ha="center")
    for row, group in enumerate(real.groups.unique().tolist()):
        top = 2.82 - 0.2 * row
        write(figure, left + 0.78, top - 0.085, real.group_names[group], ha="right")
        draw_mosaic(figure, real.images[real.groups == group][:7], (left + 0.86, top), 7, 2)
        write(figure, left + 2.16, top - 0.085, "…" if sizes[group] > 7 else "")
        write(figure, left + 2.72, top - 0.085, str(sizes[group]), ha="right", weight="bold")


def draw_column(figure, scene, align, steps):
    """An alignment: its loss, its pull among the signals, the synthetic images it ends with."""
    write(figure, LEFT[align], HEIGHT - 0.2, TITLE[align], size=11, weight="bold")
    write(figure, LEFT[align], HEIGHT - 0.58, LOSS[align], size=12)
    pixels, path = pull(scene, align, steps)
    draw_synthetic(figure, LEFT[align], f"$S$ after {steps} steps of this pull", pixels)
    axes = figure.add_axes((LEFT[align] / WIDTH, PANEL_FOOT / HEIGHT, PANEL / WIDTH, PANEL / HEIGHT))
    draw_signals(axes, scene)
    draw_pull(axes, scene, align, scene.project(path))


def draw_signals(axes, scene):
    """Every real image's signal and every group's center."""
    points, colors = scene.project(scene.signals), PALETTE[scene.real.groups] / 255
    axes.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim", facecolor=PAPER)
    axes.scatter(*points.T, s=14, c=colors, edgecolors=INK, linewidths=0.4, zorder=2)
    for center, group in zip(scene.project(scene.targets("fairdd")), scene.real.groups.unique(), strict=True):
        axes.plot(*center, **CENTRE | {"color": PALETTE[group] / 255}, zorder=4)


def draw_pull(axes, scene, align, path):
    """An arrow to every target, the way that the synthetic mean went, the minimum."""
    for target in scene.project(scene.targets(align)):
        axes.annotate("", target, path[0], arrowprops=ARROW, zorder=3)
    axes.plot(*path.T, color=INK, linewidth=2.2, zorder=4)
    axes.plot(*path[0], **MEAN, zorder=5)
    (remark, place), star = REMARK[align], scene.project(scene.minimum(align))
    axes.plot(*star, **MINIMUM, zorder=6)
    axes.annotate(remark.format(scene.shares(align).max()), star, place, textcoords="offset points", ha="center")


def draw_synthetic(figure, left, title, pixels):
    write(figure, left, 0.49, title)
    draw_mosaic(figure, pixels, (left, 0.34), IPC, 3)


def draw_legend(figure):
    handles = [Line2D([], [], **style) for style in (IMAGE, CENTRE, MEAN, MINIMUM)]
    middle = (LEFT["vanilla"] + LEFT["fairdd"] + PANEL) / 2
    figure.legend(handles=handles, ncols=4, frameon=False, loc="center", handletextpad=0.4, columnspacing=1.0,
                  handlelength=1.4, bbox_to_anchor=(middle / WIDTH, (PANEL_FOOT - 0.2) / HEIGHT))
    write(figure, middle, PANEL_FOOT - 0.6, NOTE, ha="center", color=SOFT, linespacing=1.4)


def draw_mosaic(figure, images, place, columns, zoom):
    """Images (N, 3, H, W) uint8 in rows, white lines between them, every pixel zoom pixels. place: top left"""
    tiles = images.permute(0, 2, 3, 1).numpy().repeat(zoom, 1).repeat(zoom, 2)
    tiles = np.pad(tiles, ((0, -len(tiles) % columns), (1, 1), (1, 1), (0, 0)), constant_values=255)
    rows = [np.concatenate(list(row), 1) for row in tiles.reshape(-1, columns, *tiles.shape[1:])]
    left, top = (round(DPI * inches) for inches in place)
    figure.figimage(np.concatenate(rows), left, top - sum(map(len, rows)), origin="upper")


def write(figure, x, y, text, **style):
    figure.text(x / WIDTH, y / HEIGHT, text, **{"va": "center"} | style)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main_figure().savefig(sys.argv[1] if sys.argv[1:] else "docs/method.png")

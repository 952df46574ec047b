"""Where images lie in the eyes of one random network, in two dimensions: real ones, and synthetic sets among them.

The plane is spanned by the first two principal components of the real images' embeddings.
"""

import torch

from fairdd.core.rng import numpy_generator
from fairdd.matching.embedding import embeddings

MOST = 600         # real images: more points hide each other, and cost


def project_to_plane(net, real, sets, *key):
    """Coordinates in the plane, and what each point is. -> dict: "real", the names of sets, its "share" of variance

    real: GroupedImages, of which the key draws at most MOST; sets: name -> [images (M, C, H, W), labels (M,)].
    """
    net.eval()                                  # batch norm must not mix the images
    rows = torch.from_numpy(numpy_generator(*key, "rows").permutation(len(real))[:MOST])
    signals = embeddings(net, real.batch(rows)).double()
    center = signals.mean(0)
    axes, share = principal_axes(signals - center)

    def points(signals, **of_points):
        places = ((signals - center) @ axes).tolist()
        return {"points": places} | {name: values.tolist() for name, values in of_points.items()}

    found = {"real": points(signals, labels=real.labels[rows], groups=real.groups[rows]), "share": share}
    for name, (images, labels) in sets.items():
        found[name] = points(embeddings(net, images.to(real.images.device)).double(), labels=labels)
    return found


def principal_axes(signals):
    """The two directions of largest variance, and their share of it. signals: (N, D), centered -> (D, 2), float

    Found through the (N, N) products, since D is far larger; each axis points to where its largest entry is positive.
    """
    variances, places = torch.linalg.eigh(signals @ signals.T)
    axes = torch.nn.functional.normalize(signals.T @ places[:, -2:].flip(1), dim=0)
    signs = axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    return axes * signs, (variances[-2:].sum() / variances.clamp(min=0).sum().clamp(min=1e-12)).item()

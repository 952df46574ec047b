"""Project real and synthetic images to a plane: the first two principal components of the real images' embeddings."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fairdd.core.rng import numpy_generator
from fairdd.datasets.base import GroupedImages
from fairdd.matching.embedding import embeddings

MAX_REAL_IMAGES = 600       # more points hide each other and take longer


def project_to_plane(net: nn.Module, real: GroupedImages, sets: Mapping[str, Sequence[Tensor]], *key) -> dict:
    """Return the coordinates of images in the plane: "real" and each set's name -> {"points": [[x, y], ...], "labels"}.

    real: the key draws up to MAX_REAL_IMAGES of them; their entry also holds "groups". sets: name -> [images
    (M, C, H, W), labels (M,)]. "share" is the fraction of the real images' variance that lies in the plane.
    """
    from sklearn.decomposition import PCA  # imported late: it takes a second

    net.eval()                                  # so that batch norm does not mix the images
    rows = torch.from_numpy(numpy_generator(*key, "rows").permutation(len(real))[:MAX_REAL_IMAGES])
    real_embeddings = _embed(net, real.batch(rows))
    with np.errstate(invalid="ignore"):         # embeddings that are all equal have no variance to divide by
        pca = PCA(2, svd_solver="full").fit(real_embeddings)
    result = {
        "real": {"points": pca.transform(real_embeddings).tolist(), "labels": real.labels[rows].tolist(),
                 "groups": real.groups[rows].tolist()},
        "share": float(np.nan_to_num(pca.explained_variance_ratio_.sum())),
    }
    for name, (images, labels) in sets.items():
        points = pca.transform(_embed(net, images.to(real.device)))
        result[name] = {"points": points.tolist(), "labels": labels.tolist()}
    return result


def _embed(net: nn.Module, images: Tensor) -> np.ndarray:
    """Return the embeddings of images (B, D); values that overflow, as huge pixels do, are 0."""
    return np.nan_to_num(embeddings(net, images).double().cpu().numpy(), posinf=0, neginf=0)

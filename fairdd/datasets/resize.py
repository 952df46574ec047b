"""Another image size for sets that are made at a size of their own."""

import torch.nn.functional as F


def resize(images, size):
    """Images (N, 3, H, W) uint8 at size x size pixels, bilinear with antialias; None or their own size: untouched."""
    if size is None or images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)

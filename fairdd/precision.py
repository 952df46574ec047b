"""--precision: the numbers that networks calculate with. Weights, pixels, losses and sums stay 32-bit in every case."""

import torch
from torch import nn

from fairdd.errors import UserError

PRECISIONS = ("fp32", "tf32", "bf16")


def set_precision(name, device):
    """Whether a GPU may round the inputs of 32-bit products to tf32. Raises UserError where there is no tf32."""
    if name == "tf32" and not device.startswith("cuda"):
        raise UserError(f"--precision tf32 is for GPUs of NVIDIA, not for {device}")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = name == "tf32"


def calculating_in(name, net):
    """The network as it is, or calculating in bf16."""
    return InBfloat16(net) if name == "bf16" else net


class InBfloat16(nn.Module):
    """A network whose layers run under autocast to bf16, in any thread; what it gives is 32-bit."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, images):
        return self._in_bf16(self.net, images)

    def embed(self, images):
        return self._in_bf16(self.net.embed, images)

    def _in_bf16(self, layers, images):
        with torch.autocast(images.device.type, torch.bfloat16):
            return layers(images).float()

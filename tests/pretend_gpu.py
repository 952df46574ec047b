"""A pretend GPU: tensors that claim to be on another device and keep their values on the CPU.

Code that runs on it takes its GPU path and gives real numbers, so that both paths can be compared without a GPU. Every
operation is counted:

    launches    kernels that a GPU would run; views cost none
    uploads     copies from the host, those of host tensors that index a tensor on the device included
    syncs       operations for which the host waits: .item(), copies to the host, results whose shape depends on values

An operation on tensors of both devices is refused, as on a real GPU.
"""

from collections import Counter

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

GPU = torch.device("meta")          # the only device besides the CPU that autograd knows everywhere
ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
VALUE_DEPENDENT = {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "equal", "is_nonzero",
                   "repeat_interleave"}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
COPIES = {"_to_copy", "copy_"}


class PretendTensor(Tensor):
    """A tensor of the pretend GPU. on_host: its values."""

    @staticmethod
    def __new__(cls, on_host: Tensor):
        tensor = Tensor._make_wrapper_subclass(
            cls, on_host.shape, strides=on_host.stride(), storage_offset=on_host.storage_offset(), dtype=on_host.dtype,
            device=GPU, requires_grad=on_host.requires_grad)
        tensor.on_host = on_host
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return PretendGPU.active.run(operation, args, kwargs or {})


class PretendGPU(TorchDispatchMode):
    """A context in which device "meta" is the pretend GPU; launches, uploads, syncs: counters by operation."""

    active: "PretendGPU | None" = None      # the one that was entered last

    def __init__(self):
        super().__init__()
        self.reset()

    def __enter__(self):
        PretendGPU.active = self
        return super().__enter__()

    def reset(self) -> None:
        self.launches, self.uploads, self.syncs = Counter(), Counter(), Counter()

    def counts(self) -> dict[str, int]:
        """Return the totals since the last reset."""
        return {name: getattr(self, name).total() for name in ("launches", "uploads", "syncs")}

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return self.run(operation, args, kwargs or {})

    def run(self, operation, args, kwargs):
        """Compute an operation on the CPU, count it, and return its result on the pretend GPU if it belongs there."""
        if operation._can_decompose():          # in inference mode, composite operations arrive whole
            with self:
                return operation.decompose(*args, **kwargs)
        name = operation.overloadpacket.__name__
        tensors = [leaf for leaf in tree_iter((args, kwargs)) if isinstance(leaf, Tensor)]
        is_on_gpu = any(isinstance(tensor, PretendTensor) for tensor in tensors)
        target = kwargs.get("device")
        goes_to_gpu = target is not None and torch.device(target).type == GPU.type
        if not is_on_gpu and not goes_to_gpu:
            return operation(*args, **kwargs)
        self.check_devices(name, tensors, args)
        host_kwargs = tree_map_only(PretendTensor, lambda tensor: tensor.on_host, kwargs)
        if target is not None:
            host_kwargs["device"] = torch.device("cpu")
        result = operation(*tree_map_only(PretendTensor, lambda tensor: tensor.on_host, args), **host_kwargs)
        leaves_gpu = (is_on_gpu and target is not None and not goes_to_gpu) or (
            name == "copy_" and not isinstance(args[0], PretendTensor))
        self.count(name, operation, args, is_on_gpu, leaves_gpu)
        if leaves_gpu or name == "_local_scalar_dense":
            return args[0] if name == "copy_" else result
        if operation._schema.is_mutable and isinstance(args[0], PretendTensor) and not name.startswith("_"):
            return args[0]
        return tree_map_only(Tensor, PretendTensor, result)

    def count(self, name, operation, args, is_on_gpu, leaves_gpu) -> None:
        """Add an operation to the counters."""
        if name == "_local_scalar_dense" or leaves_gpu:
            self.syncs[name] += 1
            return
        is_mask = name in INDEXING and any(index is not None and index.dtype == torch.bool for index in args[1])
        if name in VALUE_DEPENDENT or is_mask:
            self.syncs[name] += 1
        is_upload = name in COPIES and not any(isinstance(arg, PretendTensor) for arg in args[name == "copy_":])
        if is_upload:
            self.uploads[name] += 1
        elif not is_view(operation) and name not in ALLOCATIONS:
            self.launches[name] += 1

    def check_devices(self, name: str, tensors: list[Tensor], args) -> None:
        """Count host tensors that index as uploads; raise RuntimeError for others that are not scalars."""
        on_host = [tensor for tensor in tensors if not isinstance(tensor, PretendTensor) and tensor.ndim]
        if name in INDEXING:
            indices = {id(index) for index in args[1] if index is not None and not isinstance(index, PretendTensor)}
            self.uploads["index"] += len(indices)
            on_host = [tensor for tensor in on_host if id(tensor) not in indices]
        if on_host and name not in COPIES:
            raise RuntimeError(f"{name}: all tensors must be on the same device, but got the GPU and the CPU")


def is_view(operation) -> bool:
    """Return whether an operation only gives another view of its input (or, for a few, may copy but seldom does)."""
    name = operation.overloadpacket.__name__
    returns = operation._schema.returns
    aliases = any(value.alias_info is not None and not value.alias_info.is_write for value in returns)
    return aliases or name in {"_unsafe_view", "_reshape_alias", "lift_fresh", "is_same_size", "set_", "detach_"}

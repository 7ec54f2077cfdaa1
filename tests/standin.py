"""A stand-in for a GPU: tensors that say they are on `cuda:0`, are computed on the processor, and obey the rules of two
devices. What waits for the device is counted.

What it knows: operations on tensors of both devices fail, numbers (0-dimensional tensors) and the indices that CUDA
admits excepted; `.numpy()` of a device's tensor fails; a device has a random generator of its own; a file with tensors
is loaded with `map_location`; a process gets no more memory at once than its share; copies to the processor wait, as do
copies from memory that is not pinned, `.item()`, `bool()`, `.tolist()`, boolean indices, `nonzero` and their like, and
`torch.cuda.set_sync_debug_mode` warns of it.

What it cannot know: rounding, mixed precision, speed, memory, and which operations CUDA lacks.
"""

from __future__ import annotations

import contextlib
import math
import types
import warnings
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch._dispatch.python import enable_python_dispatcher
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend


class _Backend(_DummyBackendModule):
    """The module `torch.standin`. It stays after `device()`, and `torch.random.fork_rng` of later tests asks it."""

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        """Sets nothing: `fork_rng` sets the processor's generator itself."""


if not hasattr(torch, "standin"):  # libtorch keeps it for the life of the process
    _setup_privateuseone_for_python_backend("standin", backend_module=_Backend())
#: What tensors say, and what libtorch takes them for: the one kind of device that Python can make.
CUDA, INSIDE = torch.device("cuda:0"), torch.device("standin:0")
#: Bytes of memory, and those that are in use where somebody asks.
MEMORY, USED = 16 * 2**30, 2**30
aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.to.device, aten.to.dtype_layout, aten.copy_.default}
#: Operations whose result, or its shape, must be known on the processor.
WAITING = {
    aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten._unique2.default,
    aten.unique_consecutive.default, aten.unique_dim.default, aten.equal.default, aten.is_nonzero.default,
    aten.bincount.default,
}  # fmt: skip
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}


class OnDevice(torch.Tensor):
    """A tensor on the stand-in; its values are those of `here`."""

    here: torch.Tensor

    @staticmethod
    def __new__(cls, here: torch.Tensor) -> OnDevice:
        made = torch.Tensor._make_wrapper_subclass(
            cls, here.size(), strides=here.stride(), storage_offset=here.storage_offset(), dtype=here.dtype,
            layout=here.layout, device=INSIDE, requires_grad=False,
        )  # fmt: skip
        made.here = here
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func}: a tensor of the stand-in outside of it")

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.here.detach().__reduce_ex__(protocol)


class StandIn(TorchDispatchMode):
    """Computes the device's operations; `waits` is how often something waited for it, `share` of its memory this
    process's."""

    def __init__(self) -> None:
        super().__init__()
        self.waits, self.warns, self.share = 0, False, 1.0
        self.generator = torch.Generator().manual_seed(0)

    def wait(self, what: Any) -> None:
        self.waits += 1
        if self.warns:
            warnings.warn(f"called a synchronizing CUDA operation: {what}", stacklevel=3)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)]
        mine = [t for t in tensors if isinstance(t, OnDevice)]
        asked = kwargs.get("device")
        target = None if asked is None else _inside(torch.device(asked))
        if target == INSIDE:
            kwargs["device"] = torch.device("cpu")
        stays = bool(mine) if target is None else target == INSIDE
        if func is aten.copy_.default:
            stays = isinstance(args[0], OnDevice)
        if func in COPIES:
            if len({isinstance(t, OnDevice) for t in tensors} | {stays}) > 1:
                self.wait(func)
        elif mine:
            self._check(func, args, tensors)
        if mine and (func in WAITING or (func is aten.repeat_interleave.Tensor and kwargs.get("output_size") is None)):
            self.wait(func)
        if stays and func is aten.empty.memory_format:
            self._allow(math.prod(args[0]) * torch.empty((), dtype=kwargs.get("dtype")).element_size())
        inner, named = tree_map_only(OnDevice, lambda t: t.here, (args, kwargs))
        with self._own_generator(func, stays):
            out = func(*inner, **named)
        if not stays or func is aten._local_scalar_dense.default:
            return out
        out = tree_map_only(torch.Tensor, OnDevice, out)
        return return_and_correct_aliasing(func, args, kwargs, out) if mine else out

    def _check(self, func: Any, args: Any, tensors: list[torch.Tensor]) -> None:
        """Raises what CUDA raises where a tensor lies on the processor."""
        if func in INDEXING:
            if not isinstance(args[0], OnDevice):
                raise RuntimeError(f"{func}: indices should be either on cpu or on the same device as the tensor")
            indices = [index for index in args[1] if index is not None]
            if any(not isinstance(i, OnDevice) or i.dtype in (torch.bool, torch.uint8) for i in indices):
                self.wait(func)
        elif any(not isinstance(t, OnDevice) and t.dim() > 0 for t in tensors):
            raise RuntimeError(f"{func}: Expected all tensors to be on the same device, but found cuda:0 and cpu")

    def _allow(self, size: int) -> None:
        if size > self.share * MEMORY:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes.")

    @contextlib.contextmanager
    def _own_generator(self, func: Any, stays: bool) -> Iterator[None]:
        if not stays or torch.Tag.nondeterministic_seeded not in func.tags:
            yield
            return
        before = torch.get_rng_state()
        torch.set_rng_state(self.generator.get_state())
        try:
            yield
        finally:
            self.generator.set_state(torch.get_rng_state())
            torch.set_rng_state(before)


class _Python(TorchFunctionMode):
    """What PyTorch decides by the device before it dispatches."""

    def __init__(self, mode: StandIn) -> None:
        super().__init__()
        self.mode = mode

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not torch.device:
            args, kwargs = tree_map_only((torch.device, str), _inside, (args, kwargs))
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") == INSIDE:
            there, needed = kwargs.pop("device"), kwargs.pop("requires_grad", False)
            return func(*args, **kwargs).to(there).requires_grad_(needed)
        if args and isinstance(args[0], OnDevice):
            if func is torch.Tensor.new_tensor:
                return torch.tensor(args[1], dtype=kwargs.get("dtype") or args[0].dtype).to(INSIDE)
            if func is torch.Tensor.tolist:
                self.mode.wait(func)
                return args[0].here.tolist()
            if func is torch.Tensor.numpy:
                raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
            if func is F.scaled_dot_product_attention:  # it would look for the kernels of a GPU
                names = dict(zip(("attn_mask", "dropout_p", "is_causal"), args[3:], strict=False)) | kwargs
                return aten._scaled_dot_product_attention_math.default(*args[:3], **names)[0]
        return func(*args, **kwargs)


def _inside(device: Any) -> Any:
    return INSIDE if device in ("cuda", "cuda:0", torch.device("cuda"), CUDA) else device


@contextlib.contextmanager
def device() -> Iterator[StandIn]:
    """Inside the block there is one GPU, the stand-in."""
    mode, loads = StandIn(), torch.load
    properties = types.SimpleNamespace(name="stand-in", total_memory=MEMORY, uuid="stand-in")

    def load(*args: Any, **kwargs: Any) -> Any:
        assert kwargs.get("map_location") is not None, "torch.load without map_location"
        return loads(*args, **kwargs)

    known = {
        "is_available": lambda: True, "is_initialized": lambda: True, "_lazy_init": lambda: None,
        "device_count": lambda: 1, "current_device": lambda: 0, "synchronize": lambda *_: None,
        "is_bf16_supported": lambda *_: True, "is_current_stream_capturing": lambda: False,
        "get_device_name": lambda *_: "stand-in", "get_device_properties": lambda *_: properties,
        "mem_get_info": lambda *_: (MEMORY - USED, MEMORY), "reset_peak_memory_stats": lambda *_: None,
        **dict.fromkeys(("max_memory_allocated", "max_memory_reserved", "memory_reserved"), lambda *_: USED),
        "memory_allocated": lambda *_: 0,
        **dict.fromkeys(("manual_seed", "manual_seed_all"), mode.generator.manual_seed),
        "get_rng_state_all": lambda: [mode.generator.get_state()],
        "set_rng_state_all": lambda states: mode.generator.set_state(states[0]),
        "set_per_process_memory_fraction": lambda share, *_: setattr(mode, "share", share),
        "set_sync_debug_mode": lambda level: setattr(mode, "warns", level != "default"),
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        for name, replacement in known.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, replacement))
        stack.enter_context(mock.patch.object(torch, "load", load))
        # `Module.to` would put the device's values into a parameter of the processor's kind.
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, False)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.enter_context(enable_python_dispatcher())
        stack.enter_context(mode)
        stack.enter_context(_Python(mode))
        yield mode

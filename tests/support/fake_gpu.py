"""A device that is not the CPU and computes on it: counts what a GPU would launch, copy, and be waited for.

Its tensors wrap one on the CPU each. Every operator counts as one launch, unless it makes a view or only allocates;
some launch several on a GPU (a sort, a product that is split), so true numbers are slightly higher. Attention counts as
one launch, with a mask as two, and as three more where that holds truth values and is turned into a bias.

As on a GPU, no operator takes tensors of the host beside the device's, but for copies, indices and numbers.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from dexar_fast.stages import Recorder

NAME = "counted"
LAUNCH, WAIT, TO_DEVICE, FROM_DEVICE = "launch", "wait", "copy to the device", "copy from the device"
ALLOCATES = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_", "set_"}
VIEWS = {"detach", "alias", "lift_fresh", "_unsafe_view", "_reshape_alias"}
# operators whose result, or its shape, is a number that the host has to know
ASKS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "bincount", "_unique2", "is_nonzero"}
# operators with a kernel of their own on a GPU, which elsewhere are put together from others
WHOLE = {"silu_backward", "rms_norm", "_fused_rms_norm"}
READS = {"item", "tolist", "__bool__", "__int__", "__float__", "__index__"}  # of a tensor, past the dispatcher
Key = tuple[str, str, str]  # stage, kind, line of ours or of transformers


class _Module(backend_registration._DummyBackendModule):
    """What torch asks of a backend's module."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


backend_registration._setup_privateuseone_for_python_backend(NAME, _Module())
DEVICE = torch.device(NAME, 0)


class Counts:
    """How often each kind of event happened, by stage and line."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.found: Counter[Key] = Counter()

    def note(self, kind: str) -> None:
        stage = self._recorder.open[-1] if self._recorder.open else ""
        self.found[stage, kind, _line(sys._getframe(2))] += 1

    def of(self, kind: str, *stages: str) -> int:
        """Of a kind, in some stages or in all."""
        return sum(n for (stage, which, _), n in self.found.items() if which == kind and stage in (stages or (stage,)))

    def lines(self, kind: str) -> dict[str, int]:
        """Of a kind, by line, the most frequent first."""
        lines: Counter[str] = Counter()
        for (stage, which, line), n in self.found.items():
            lines[f"{stage or '-'}: {line}"] += n if which == kind else 0
        return {line: n for line, n in lines.most_common() if n}


_counts: Counts | None = None


def _note(kind: str) -> None:
    if _counts is not None:
        _counts.note(kind)


def _line(frame: FrameType | None) -> str:
    """The innermost line of this project or of transformers."""
    while frame is not None:
        name = frame.f_code.co_filename
        for package in ("/dexar_fast/", "/transformers/"):
            if package in name and "/tests/" not in name:
                return f"{name[name.rindex(package) + 1 :]}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


class Counted(Tensor):
    """A tensor of the device; `held` lies on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Counted:
        wrapper = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=DEVICE,
        )
        wrapper.held = held
        return wrapper

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Counted({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", "").removesuffix(".default")
        if name in WHOLE and not _records((args, kwargs)):
            _note(LAUNCH)
            return tree_map(_wrapped, function(*tree_map(_held, args), **tree_map(_held, kwargs or {})))
        if function is functional.scaled_dot_product_attention and not _records((args, kwargs)):
            return _attention(*args, **(kwargs or {}))
        if name in READS and isinstance(args[0], Counted):
            _note(WAIT)
            return getattr(args[0].held, name)()
        if name == "numpy":
            raise TypeError("a tensor of the device has no numpy array")
        with torch._C.DisableTorchFunctionSubclass():
            return function(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


def _records(operands: Any) -> bool:
    """Whether autograd follows a call: then it is put together from others, which have gradients."""
    with torch._C.DisableTorchFunctionSubclass():
        return torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in tree_leaves(operands))


def _attention(query: Any, key: Any, value: Any, attn_mask: Any = None, **more: Any) -> Counted:
    """Without a mask flash attention; with one the memory-efficient kernel, which takes a bias padded to 8 keys.

    What pads it counts even where the keys are a multiple of 8: so a count does not hang on the length of a prompt.
    """
    mask = None if attn_mask is None else attn_mask.held
    for _ in range(1 if mask is None else 5 if mask.dtype == torch.bool else 2):
        _note(LAUNCH)
    found = functional.scaled_dot_product_attention(query.held, key.held, value.held, attn_mask=mask, **more)
    return Counted(found.transpose(1, 2).contiguous().transpose(1, 2))  # as the GPU's kernels lay it out


def _flash(query: Any, key: Any, value: Any, dropout: float, causal: bool, scale: float) -> Counted:
    """Flash attention itself: causal means that the last query reads every key."""
    _note(LAUNCH)
    queries, keys = query.shape[2], key.shape[2]
    mask = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries) if causal else None
    operands = query.held, key.held, value.held
    found = functional.scaled_dot_product_attention(*operands, mask, dropout, scale=scale, enable_gqa=True)
    return Counted(found.transpose(1, 2).contiguous().transpose(1, 2))


def _run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operator on tensors of the device, or that makes one."""
    name, leaves = function._schema.name.split("::")[1], tree_leaves((args, kwargs))
    if name == "device":
        return DEVICE
    ours = [x for x in leaves if isinstance(x, Counted)]
    wanted = None if kwargs.get("device") is None else torch.device(kwargs["device"])
    if not ours and (wanted is None or wanted.type != NAME):
        return function(*args, **kwargs)
    if name == "_scaled_dot_product_flash_attention":
        nothing = Counted(torch.empty(0))
        others = [nothing if "Tensor" in str(each.type) else 0 for each in function._schema.returns[1:]]
        return _flash(*args, **kwargs), *others
    for kind in _kinds(function, name, args, leaves, ours, wanted):
        _note(kind)
    given = {name: value for name, value in kwargs.items() if name != "pin_memory"}
    if wanted is not None:
        given["device"] = torch.device("cpu")
    found = function(*tree_map(_held, args), **tree_map(_held, given))
    leaves_device = (wanted is not None and wanted.type == "cpu") or (
        name == "copy_" and not isinstance(args[0], Counted)
    )
    if leaves_device or name == "_local_scalar_dense":
        return found
    known = {id(x.held): x for x in ours}
    return tree_map(lambda x: known.get(id(x), Counted(x)) if type(x) is Tensor else x, found)


def _kinds(
    function: Any, name: str, args: Any, leaves: list[Any], ours: list[Counted], wanted: torch.device | None
) -> list[str]:
    """What an operator has a GPU do."""
    if name == "_to_copy" and wanted is not None and (wanted.type == "cpu" or not ours):
        if not args[0].numel():
            return []
        return [FROM_DEVICE if wanted.type == "cpu" else TO_DEVICE]
    if name == "copy_" and not all(isinstance(x, Counted) for x in args[:2]):
        return [TO_DEVICE if isinstance(args[0], Counted) else FROM_DEVICE]
    if name == "_local_scalar_dense":
        return [WAIT]
    if name in ALLOCATES | VIEWS or any(r.alias_info and not r.alias_info.is_write for r in function._schema.returns):
        return []
    indexes = name.startswith(("index", "_index"))
    masked = indexes and any(isinstance(i, Tensor) and i.dtype == torch.bool for i in tree_leaves(args[1]))
    waits = [WAIT] if masked or name in ASKS else []
    copies = [TO_DEVICE for x in leaves if type(x) is Tensor and x.dim()]  # an operand that lies on the host
    if copies and not indexes:
        raise RuntimeError(f"{name} was given tensors of the host and of the device")
    return [*waits, *copies, LAUNCH]


def _wrapped(x: Any) -> Any:
    return Counted(x) if type(x) is Tensor else x


def _held(x: Any) -> Any:
    return x.held if isinstance(x, Counted) else x


class _Factories(TorchDispatchMode):
    """Sees operators that no tensor of the device is given to."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


def _made(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """torch.tensor and torch.as_tensor, which no mode sees."""

    def making(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        if isinstance(data, Counted):
            return data if device is None else data.to(device)
        made = make(data, *args, **kwargs)
        return made if device is None else made.to(device)

    return making


def moved(model: nn.Module, recurse: bool = True) -> nn.Module:
    """The model, its weights and buffers on the device."""
    for module in model.modules() if recurse else [model]:
        for tensors in (module._parameters, module._buffers):
            tensors.update({n: Counted(x.detach()) for n, x in tensors.items() if x is not None})  # type: ignore[misc]
    return model


@contextmanager
def on_the_device() -> Iterator[None]:
    """Inside the block code may make tensors on the device."""
    with _Factories(), patch("torch.tensor", _made(torch.tensor)), patch("torch.as_tensor", _made(torch.as_tensor)):
        yield


@contextmanager
def counting() -> Iterator[Counts]:
    """Counts inside the block."""
    global _counts
    recorder = Recorder(mark=lambda: None)
    _counts = Counts(recorder)
    try:
        with on_the_device(), recorder.recording():
            yield _counts
    finally:
        _counts = None

"""The CUDA C++ backend: csrc/cuda on torch tensors. It checks everything that must hold before addresses are read.

It is a library of its own, dexar_fast/_cuda.*.so, built if nvcc is found, without torch or Python in it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from dexar_fast.backends.slots import Copies, check_copies
from dexar_fast.errors import BackendError, InputError

ALIGNMENT = 16  # bytes moved at a time


class _Slots(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("heads", ctypes.c_int64),
        ("slots", ctypes.c_int64),
        ("slot_bytes", ctypes.c_int64),
    )


class _SlotCopy(ctypes.Structure):
    _fields_ = (("source", ctypes.c_int64), ("target", ctypes.c_int64), ("count", ctypes.c_int64))


@cache
def obstacle() -> str | None:
    """Why nothing here can run on the current device; None if it can."""
    path = _built()
    if path is None:
        return "not built: install nvcc of CUDA 13, then dexar_fast again"
    try:
        said = _library(path).dexar_cuda_obstacle()
    except OSError as error:
        return f"does not load ({error}): install dexar_fast again on this machine"
    return None if said is None else said.decode()


def kv_copy(tensors: Sequence[Tensor], copies: Copies) -> None:
    """`reference.kv_copy` by csrc/cuda/kv_copy.h: one launch, on the current stream of the tensors' device.

    Raises:
        InputError: arguments that do not fit each other. BackendError: it was not built, or the device refused it.
    """
    check_copies(tensors, copies)
    _check(tensors)
    path, device = _built(), tensors[0].device
    if path is None:
        raise BackendError(f"csrc/cuda is {obstacle()}")
    with torch.cuda.device(device):
        _launch(path, tensors, copies, device.index, torch.cuda.current_stream().cuda_stream)


def _launch(path: str, tensors: Sequence[Tensor], copies: Copies, device: int, stream: int) -> None:
    table = (_Slots * len(tensors))(*map(_slots, tensors))
    moves = (_SlotCopy * len(copies))(*(_SlotCopy(*copy) for copy in copies))
    said = _library(path).dexar_kv_copy(table, len(table), moves, len(moves), device, stream)
    if said is not None:
        raise BackendError(f"csrc/cuda/kv_copy.cu did not run: {said.decode()}; use backend='torch'")


def _check(tensors: Sequence[Tensor]) -> None:
    for x in tensors:
        if not (x.is_cuda and x.is_contiguous() and x.data_ptr() % ALIGNMENT == 0 and len(x) == 1 and x.numel()):
            raise InputError("slots are copied in CUDA tensors [1, H_kv, slots, D], dense and aligned to 16 bytes")


def _slots(x: Tensor) -> _Slots:
    _, heads, slots, width = x.shape
    return _Slots(x.data_ptr(), heads, slots, width * x.element_size())


def _built() -> str | None:
    """The path of the library."""
    found = find_spec("dexar_fast._cuda")
    return None if found is None else found.origin


@cache
def _library(path: str) -> ctypes.CDLL:
    library = ctypes.CDLL(path)
    library.dexar_cuda_obstacle.restype = library.dexar_kv_copy.restype = ctypes.c_char_p
    library.dexar_cuda_obstacle.argtypes = ()
    library.dexar_kv_copy.argtypes = (
        ctypes.POINTER(_Slots),
        ctypes.c_int64,
        ctypes.POINTER(_SlotCopy),
        ctypes.c_int64,
        ctypes.c_int,
        ctypes.c_void_p,
    )
    return library

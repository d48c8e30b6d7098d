"""Which backend takes each operation, chosen here alone."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec

import torch

from dexar_fast.backends import cpp, cuda
from dexar_fast.backends.verdicts import kept
from dexar_fast.backends.verdicts.case import Case
from dexar_fast.errors import BackendError, InputError
from dexar_fast.settings import HeadScore, MapFilter

BACKENDS = ("torch", "cpp", "triton")
DEVICES = {"cpp": "cpu", "triton": "cuda"}
ENVIRONMENT = "DEXAR_FAST_BACKEND"
OPERATORS = {"aggregate": ("head_score",), "layer_tail_vjp": ("norm_vjp", "gated_vjp")}  # what is judged for a choice


@dataclass(frozen=True)
class Choice:
    """Which backend an operation takes, and why."""

    op: str
    backend: str
    reason: str


def plan(
    backend: str = "auto", *, device: str = "cpu", head_score: HeadScore = "max", map_filter: MapFilter = None
) -> list[Choice]:
    """The backend of every operation for `backend`; DEXAR_FAST_BACKEND in the environment overrides "auto".

    On a GPU "auto" takes a kernel at the sizes at which a verdict of this machine does; at others torch.

    Raises:
        InputError: an unknown name. BackendError: the backend asked for by name cannot run, or not with these knobs.
    """
    asked = _asked(backend)
    scoring = _scoring(asked, device, head_score == "max" and map_filter is None)
    passes = Choice("head_score", *scoring), Choice("aggregate", *scoring), _tail(asked, device)
    return [_with_verdicts(choice, asked, device) for choice in (*passes, *_moving(asked, device))]


def judged(backend: str, case: Case, plain: bool = True) -> bool:
    """Whether "auto" takes a GPU's kernel at these sizes; plain: head_score "max" without a map filter."""
    device = case.device.partition(":")[0]
    return _needs_verdict(_asked(backend), device, plain) and kept.takes(case)


@cache
def _needs_verdict(asked: str, device: str, plain: bool = True) -> bool:
    """Whether a GPU's kernels could run, and "auto" has to know whether they should."""
    return (
        asked == "auto"
        and device == "cuda"
        and torch.cuda.is_available()
        and _obstacle("triton", device, plain) is None
    )


def _with_verdicts(choice: Choice, asked: str, device: str) -> Choice:
    """The same, with what verdicts on this machine's first GPU say of it."""
    if not _needs_verdict(asked, device):
        return choice
    ops = OPERATORS.get(choice.op, (choice.op,))
    verdicts = [(case.kernel, verdict.taken) for case, verdict in kept.all_of("cuda:0") if case.op in ops]
    taken = [kernel for kernel, takes in verdicts if takes]
    if not taken:
        why = (
            f"none of {len(verdicts)} verdicts takes a kernel"
            if verdicts
            else "no verdict yet: dexar-fast doctor --measure"
        )
        return replace(choice, reason=why)
    return replace(choice, backend=taken[0], reason=f"at {len(taken)} of {len(verdicts)} sizes, by verdict; else torch")


def _asked(backend: str) -> str:
    named = os.environ.get(ENVIRONMENT) if backend == "auto" else None
    asked = named or backend
    if asked not in ("auto", *BACKENDS):
        source = f" in the environment's {ENVIRONMENT}" if named else ""
        raise InputError(f"unknown backend {asked!r}{source}: choose auto, {', '.join(BACKENDS)}")
    return asked


def scoring(backend: str, device: str, plain: bool) -> str:
    """The backend of scores and maps, as in `plan` but for verdicts; every layer asks for it."""
    return _scoring(_asked(backend), device, plain)[0]


@cache
def _scoring(asked: str, device: str, plain: bool) -> tuple[str, str]:
    """Backend and reason for scores and maps; plain: head_score "max" without a map filter."""
    if asked == "torch":
        return "torch", "asked for"
    kernels = "cpp" if asked == "auto" else asked
    obstacle = _obstacle(kernels, device, plain)
    if obstacle is None:
        return kernels, f"fused, on {cpp.best_instruction_set() if kernels == 'cpp' else device}"
    if asked == "auto":
        return "torch", f"runs everything on every device; no {kernels}: {obstacle}"
    raise _refusal(asked, obstacle)


def _refusal(asked: str, obstacle: str) -> BackendError:
    return BackendError(f"backend {asked!r} cannot run: {obstacle}; use backend='torch'")


def _obstacle(kernels: str, device: str, plain: bool = True) -> str | None:
    """Why a backend's kernels cannot run an operation; None if they can. plain: it has no knob that they lack."""
    if device != DEVICES[kernels]:
        return f"it works on {DEVICES[kernels]}, not on {device}"
    if not plain:
        return "it has head_score='max' without map_filter only"
    return _no_triton() if kernels == "triton" else cpp.obstacle()


def _no_triton() -> str | None:
    return None if find_spec("triton") else "triton is not installed"


def tail_step(backend: str, device: str) -> str:
    """The backend of layer_tail_vjp's element-wise steps, as in `plan`; the products between them are torch's."""
    return _tail(_asked(backend), device).backend


@cache
def _tail(asked: str, device: str) -> Choice:
    kernels = "cpp" if asked == "auto" else asked
    obstacle = "asked for" if asked == "torch" else _obstacle(kernels, device)
    if obstacle is not None and asked not in ("auto", "torch"):
        raise _refusal(asked, obstacle)
    known = "without autograd where the block is known and has agreed with it, else autograd"
    if obstacle is not None:
        return Choice("layer_tail_vjp", "torch", known)
    return Choice("layer_tail_vjp", kernels, f"{known}; fused between torch's products")


def moving(backend: str, device: str) -> tuple[Choice, Choice]:
    """The backends of kv_append and kv_copy, as in `plan`; every step of a pool asks for them."""
    return _moving(_asked(backend), device)


@cache
def _moving(asked: str, device: str) -> tuple[Choice, Choice]:
    """The choices of `moving`. Among the GPU's kernels, copies take CUDA C++ if it is built, for fewer launches."""
    gpu = device == DEVICES["triton"]
    if not gpu or asked != "triton":
        off = "a slice is copied: nothing to fuse off a GPU"
        reason = off if not gpu else "asked for" if asked == "torch" else "no verdict takes a kernel"
        return Choice("kv_append", "torch", reason), Choice("kv_copy", "torch", reason)
    if missing := _no_triton():
        raise _refusal("triton", missing)
    unbuilt = cuda.obstacle()
    copy = ("triton", f"a launch a copy; no CUDA C++: {unbuilt}") if unbuilt else ("cuda", "all layers in one launch")
    return Choice("kv_append", "triton", "keys and values in one launch"), Choice("kv_copy", *copy)

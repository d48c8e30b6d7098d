"""The most memory that a piece of work held beyond what was there before it."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # man 5 proc: sets the peak resident set to the present one


def peak(run: Callable[[], Any], device: torch.device) -> tuple[Any, int | None]:
    """(what run() returns, its peak in bytes beyond what was held before); None where the system does not tell.

    On a GPU the bytes that torch allocated; on a CPU the resident set of the process, which Linux alone can reset.
    """
    gc.collect()
    if device.type == "cuda":
        return _on_gpu(run, device)
    _give_back()
    try:
        RESET.write_text(RESET_PEAK)
        before = status("VmRSS")
    except (OSError, ValueError):
        return run(), None
    result = run()
    return result, max(0, status("VmHWM") - before)


def _on_gpu(run: Callable[[], Any], device: torch.device) -> tuple[Any, int]:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = run()
    torch.cuda.synchronize(device)
    return result, torch.cuda.max_memory_allocated(device) - before


def _give_back() -> None:
    """Has the C library return what it keeps of freed memory, so that the peak is of this work alone."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def status(field: str) -> int:
    """Bytes of one field of this process, "VmHWM" for its peak; OSError, ValueError where the system keeps none.

    Unlike getrusage's, that peak is not inherited from the process that started this one.
    """
    found = re.search(rf"^{field}:\s*(\d+) kB", STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"{STATUS} has no {field}")
    return int(found[1]) * 1024

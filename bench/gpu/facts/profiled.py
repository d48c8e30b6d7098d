"""What work has a GPU do, by torch's profiler."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
COPIES = {"copy to the device": "HtoD", "copy from the device": "DtoH", "pageable copy": "Pageable"}


def counts(work: Callable[[], Any]) -> dict[str, float]:
    """Kernels launched, waits of the host, copies, and the seconds that the device was busy, of one call."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        work()
    return summed([(x.name, x.device_type == DeviceType.CUDA, x.time_range.elapsed_us()) for x in recorded.events()])


def summed(events: Iterable[tuple[str, bool, float]]) -> dict[str, float]:
    """Of events: a name, whether it ran on the device, microseconds there."""
    found = {"launch": 0.0, "wait": 0.0, "device_seconds": 0.0} | dict.fromkeys(COPIES, 0.0)
    for name, on_device, microseconds in events:
        moves = name.startswith(("Memcpy", "Memset"))
        found["wait"] += name in WAITS
        found["launch"] += on_device and not moves
        found["device_seconds"] += microseconds / 1e6 if on_device else 0.0
        for kind, mark in COPIES.items():
            found[kind] += on_device and name.startswith("Memcpy") and mark in name
    return found

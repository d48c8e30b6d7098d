"""A trace of one explanation for Chrome or Perfetto, every operation under the stage it belongs to."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, record_function

from dexar_fast.profile.recording.hooks import inner_stages
from dexar_fast.profile.workload import Workload
from dexar_fast.stages import Recorder


def trace(work: Workload) -> bytes:
    """The JSON that chrome://tracing and ui.perfetto.dev read."""
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    recorder = Recorder(time.perf_counter, record_function)
    with (
        inner_stages(work.model, recorder),
        torch.profiler.profile(activities=activities) as profiler,
        recorder.recording(),
    ):
        work.explain()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        return path.read_bytes()

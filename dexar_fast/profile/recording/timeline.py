"""From a recorder's marks to the seconds of each stage."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from dexar_fast.profile.limits import synchronize
from dexar_fast.profile.recording.hooks import inner_stages
from dexar_fast.stages import Recorder

# In the order of the work: what each covers, without the stages inside it.
STAGES = {
    "processor": "image and chat template to the model's inputs",
    "layout": "checks of the inputs, and where their visual tokens lie in the image",
    "vision": "the image tower and its projector",
    "prefill": "the prompt through the text decoder",
    "decode": "one token at a time through the model",
    "generation": "generate() around those forwards: masks, the choice of a token, when to stop",
    "chunk forward": "the answer's tokens through the decoder again, many at a time",
    "masks": "which keys each of them may read",
    "VJP": "back through each layer's tail",
    "checks": "whether the model computes what was found of it",
    "scoring": "gradients, head scores and maps of each layer, summed over layers",
    "aggregation": "sums over tokens",
    "transfer": "inputs to the device, results from it",
    "description": "what the result says in words",
}


@dataclass(frozen=True)
class Timeline:
    """One recorded run."""

    segments: list[tuple[str, float]]  # (stage, or "" outside all; seconds), in order

    @property
    def wall(self) -> float:
        return sum(seconds for _, seconds in self.segments)

    @property
    def stages(self) -> dict[str, float]:
        """Seconds of each stage that occurred, in the order of STAGES."""
        found = dict.fromkeys(STAGES, 0.0)
        for name, seconds in self.segments:
            if name:
                found[name] = found.get(name, 0.0) + seconds
        return {name: seconds for name, seconds in found.items() if seconds}

    @property
    def coverage(self) -> float:
        """The share of the wall time that lies in some stage."""
        return sum(self.stages.values()) / self.wall

    @property
    def first_token(self) -> float | None:
        """Seconds to the end of the prompt's forward: the first token is known."""
        return self._until("prefill", last=True)

    @property
    def first_map(self) -> float | None:
        """Seconds until the first chunk's maps are on the CPU."""
        return self._until("transfer", after="chunk forward")

    def _until(self, stage: str, last: bool = False, after: str | None = None) -> float | None:
        names = [name for name, _ in self.segments]
        first = names.index(after) if after in names else 0 if after is None else len(names)
        ends = [i + 1 for i in range(first, len(names)) if names[i] == stage]
        return sum(seconds for _, seconds in self.segments[: ends[-1 if last else 0]]) if ends else None


def recorded(run: Callable[[], Any], model: Any) -> Timeline:
    """Where the time of run() goes; on a GPU by the device's clock, with NVTX ranges."""
    if model.device.type != "cuda":
        return Timeline(_segments(run, model, Recorder(time.perf_counter), lambda start, end: end - start))
    recorder = Recorder(lambda: _event(model.device), torch.cuda.nvtx.range)
    return Timeline(_segments(run, model, recorder, lambda start, end: start.elapsed_time(end) / 1e3))


def _segments(
    run: Callable[[], Any], model: Any, recorder: Recorder, seconds: Callable[[Any, Any], float]
) -> list[tuple[str, float]]:
    synchronize(model.device)
    with inner_stages(model, recorder), recorder.recording():
        run()
    synchronize(model.device)
    return [(name, seconds(before, after)) for (_, before), (name, after) in pairwise(recorder.marks)]


def _event(device: torch.device) -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event

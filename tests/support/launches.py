"""What a GPU would launch, wait for and copy in one explanation, counted on the device of `fake_gpu`.

A model has as many layers as the published one and narrow ones: launches do not depend on widths. Every layer counts as
one whose tail has agreed with autograd.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest.mock import patch

import counted_kernels
import fake_gpu
import torch
import transformers
from fake_gpu import DEVICE, FROM_DEVICE, LAUNCH, TO_DEVICE, WAIT, Key
from torch import nn

from dexar_fast import Explainer
from dexar_fast.attribution.tails import modules, trust
from dexar_fast.generation import runner
from dexar_fast.profile import dimensions, shapes

TABLE = Path(__file__).parents[1] / "launches" / "LAUNCHES.md"
MODELS = ("llava-1.5-7b", "qwen2.5-vl-7b")
KINDS = (LAUNCH, WAIT, TO_DEVICE, FROM_DEVICE)
STAGES = ("chunk forward", "VJP", "scoring")  # of a pass; the rest is work around it
BACKENDS = ("auto", "triton")  # without a verdict auto is torch
CHUNK = 4  # tokens of a streamed chunk
Found = Counter[Key]


class Row(NamedTuple):
    """Counts of one path."""

    model: str
    backend: str
    path: str
    kinds: tuple[int, ...]  # of KINDS
    stages: tuple[int, ...]  # launches, of STAGES

    @property
    def cells(self) -> list[str]:
        return [self.model, self.backend, self.path, *map(str, self.kinds + self.stages)]


def deep(name: str) -> dict[str, Any]:
    """The dimensions of a dry run, with all layers."""
    tiny, whole = dimensions.TINY[name], dimensions.DIMENSIONS[name]
    counts = ("num_hidden_layers", "depth", "fullatt_block_indexes")
    parts = {
        part: tiny[part] | {key: whole[part][key] for key in counts if key in whole[part]}
        for part in ("text_config", "vision_config")
    }
    return tiny | parts


def built(name: str) -> tuple[Any, dict[str, Any]]:
    """A model on the device, and a prompt."""
    with patch.dict(shapes.TINY, {name: deep(name)}):
        model, inputs_for = shapes.build(name, tiny=True, dtype=torch.bfloat16)
    inputs = inputs_for()
    fake_gpu.moved(model)
    with fake_gpu.on_the_device():
        return model, {key: x.to(DEVICE) for key, x in inputs.items()}


def counted(work: Callable[[], Any]) -> Found:
    """Of the second time: the first fills what is kept."""
    with fake_gpu.on_the_device():
        work()
    with fake_gpu.counting() as counts:
        work()
    return counts.found


def less(found: Found, other: Found, times: int = 1) -> Found:
    """What is left without another; some of it may be below 0."""
    return Counter({key: found[key] - times * other[key] for key in found.keys() | other.keys()})


def row(model: str, backend: str, path: str, found: Found) -> Row:
    kinds = [sum(n for (_, kind, _), n in found.items() if kind == each) for each in KINDS]
    stages = [sum(n for (at, kind, _), n in found.items() if kind == LAUNCH and at == stage) for stage in STAGES]
    return Row(model, backend, path, tuple(kinds), tuple(stages))


def paths(name: str, backend: str = "auto") -> dict[str, Found]:
    """The counts of a given answer, one step of generate(), and one chunk explained while it is written."""
    model, inputs = built(name)
    explainer, answer = Explainer(model, backend=backend), torch.arange(20, 36)

    def written(tokens: int) -> None:
        with TemporaryDirectory() as folder:  # with `out` an answer is explained as it is written
            explainer.explain_inputs(inputs, out=f"{folder}/e", max_new_tokens=tokens, do_sample=False)

    with trusted(), patch.object(runner, "PIECE", CHUNK):
        with fake_gpu.on_the_device():
            explainer.explain_inputs(inputs, answer)  # its layers agree with autograd
        given = counted(lambda: explainer.explain_inputs(inputs, answer))
        two_chunks, one_more, three_chunks = (counted(lambda n=n: written(n)) for n in (10, 11, 14))  # type: ignore[misc]
    step = less(one_more, two_chunks)
    chunk = less(less(three_chunks, two_chunks), step, CHUNK)
    found = {"given answer, one forward": given, "streamed chunk": chunk}
    return found | ({"step of generate()": step} if backend == "auto" else {})


@contextmanager
def trusted() -> Iterator[None]:
    """Tails of narrow layers in bfloat16 may miss their tolerance; the device's weights are of a class of their own."""
    with (
        patch.dict(trust.TOLERANCE, {torch.bfloat16: 1.0}),
        patch.object(trust, "as_it_is", nullcontext),
        patch.object(modules, "is_plain", lambda module: type(module) is nn.Linear),
    ):
        yield


HEAD = f"""# What a GPU launches

Counted without one, with transformers {transformers.__version__}, on models with as many layers as the published ones:
`make launches` writes this page, `tests/launches/` checks it. A launch that is saved lowers a number here; one more
must save more than it takes. *Waits* stop the host until the device has caught up; so do copies from it.

"""
TITLES = (
    "model",
    "backend",
    "path",
    "launches",
    "waits",
    "copies in",
    "copies out",
    *(f"launches: {each}" for each in STAGES),
)


def rows() -> list[Row]:
    with counted_kernels.on_the_device():
        return [
            row(name, backend, path, found)
            for name in MODELS
            for backend in BACKENDS
            for path, found in paths(name, backend).items()
        ]


def page(found: list[Row]) -> str:
    lines = [TITLES, ("---",) * len(TITLES), *(each.cells for each in found)]
    return HEAD + "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    TABLE.write_text(page(rows()))

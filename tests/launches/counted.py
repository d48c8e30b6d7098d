"""Launches, waits and copies of the paths that a GPU takes, held by the table beside this file (test_launches.py)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import counted_kernels
import fake_gpu
import launches
import pytest
import torch
import transformers
from alike import assert_same
from capture import Forward, chunks_run_by
from fake_gpu import DEVICE, FROM_DEVICE, LAUNCH, TO_DEVICE, WAIT

from dexar_fast import Explainer
from dexar_fast.attribution.sums import LayerSums
from dexar_fast.model.memory import default_chunk
from dexar_fast.profile.shapes import build


def events(work: Callable[[], Any]) -> Counter[str]:
    with fake_gpu.counting() as counts:
        work()
    found: Counter[str] = Counter()
    for (_, kind, _), n in counts.found.items():
        found[kind] += n
    return found


def test_the_device_counts_what_a_gpu_would_do() -> None:
    with fake_gpu.on_the_device():
        x = torch.ones(3, device=DEVICE)
        mask = torch.ones(1, 1, 3, 3, dtype=torch.bool, device=DEVICE)
        query = torch.ones(1, 1, 3, 4, device=DEVICE)
    attention = torch.nn.functional.scaled_dot_product_attention
    assert events(lambda: (x + 1) * 2) == {LAUNCH: 2}
    assert events(lambda: x[1:].view(2, 1).detach()) == {}
    assert events(lambda: torch.empty(3, device=DEVICE)) == {}
    assert events(lambda: torch.zeros(3, device=DEVICE)) == {LAUNCH: 1}
    assert events(lambda: x.sum().item()) == {LAUNCH: 1, WAIT: 1}
    assert events(lambda: bool((x > 0).all())) == {LAUNCH: 2, WAIT: 1}
    assert events(lambda: x[x > 0]) == {LAUNCH: 2, WAIT: 1}
    assert events(lambda: x.nonzero()) == {LAUNCH: 1, WAIT: 1}
    assert events(lambda: x.cpu()) == {FROM_DEVICE: 1}
    assert events(lambda: torch.ones(3).to(DEVICE)) == {TO_DEVICE: 1}
    assert events(lambda: torch.tensor([1, 2], device=DEVICE)) == {TO_DEVICE: 1}
    assert events(lambda: torch.tensor([], device=DEVICE)) == {}
    assert events(lambda: x.bfloat16()) == {LAUNCH: 1}
    assert events(lambda: torch.ops.aten.silu_backward(x, x)) == {LAUNCH: 1}
    assert events(lambda: torch.rms_norm(x, (3,), None, 1e-6)) == {LAUNCH: 1}
    assert events(lambda: torch.ops.aten._fused_rms_norm(x, [3], None, 1e-6)) == {LAUNCH: 1}
    assert events(lambda: attention(query, query, query)) == {LAUNCH: 1}
    assert events(lambda: attention(query, query, query, attn_mask=mask)) == {LAUNCH: 5}


@pytest.mark.parametrize("backend", launches.BACKENDS)
@pytest.mark.parametrize("name", launches.MODELS)
def test_what_is_counted_is_an_explanation(name: str, backend: str) -> None:
    """The device computes what the CPU does."""
    model, inputs_for = build(name, tiny=True, dtype=torch.float32)
    inputs, answer = inputs_for(), torch.arange(20, 27)
    expected = Explainer(model, backend="torch").explain_inputs(inputs, answer)
    fake_gpu.moved(model)
    with fake_gpu.on_the_device(), launches.trusted(), counted_kernels.on_the_device():
        explainer = Explainer(model, backend=backend)
        placed = {key: x.to(DEVICE) for key, x in inputs.items()}
        for _ in range(2):  # by autograd, by the tails
            assert_same(explainer.explain_inputs(placed, answer), expected, 1e-5)


@pytest.mark.parametrize("backend", launches.BACKENDS)
@pytest.mark.parametrize("name", launches.MODELS)
def test_a_chunks_forward_neither_waits_nor_copies(name: str, backend: str) -> None:
    """A CUDA graph can hold it: it takes no copy from pageable memory either, which a CPU does not show.

    Where keys lie is sent before it begins, once for a pass.
    """
    model, inputs_for = build(name, tiny=True, dtype=torch.float32)
    inputs, answer = inputs_for(), torch.arange(20, 28)
    expected = Explainer(model, backend="torch").explain_inputs(inputs, answer)
    fake_gpu.moved(model)
    launched, found = [], Counter[str]()

    def run(forward: Forward) -> LayerSums:
        with fake_gpu.counting() as counts:
            sums = forward()
        launched.append(counts.of(LAUNCH))
        found.update(f"{kind} at {line}" for (stage, kind, line) in counts.found if stage and kind != LAUNCH)
        return sums

    with fake_gpu.on_the_device(), launches.trusted(), counted_kernels.on_the_device():
        explainer = Explainer(model, backend=backend, chunk_size=4)
        explainer.explain_inputs(inputs, answer)
        with chunks_run_by(run) as sizes:
            assert_same(explainer.explain_inputs(inputs, answer), expected, 1e-5)
    assert sizes == [4, 4]
    assert all(launched)
    assert not found


def test_launches_are_those_of_the_table() -> None:
    """Fewer than before: `make launches`, and the table goes down with them."""
    table = launches.TABLE.read_text()
    if not table.startswith(launches.HEAD):
        pytest.skip(f"the table was not counted with transformers {transformers.__version__}")
    assert launches.page(launches.rows()) == table


@pytest.mark.parametrize("name", launches.MODELS)
def test_an_answer_of_512_tokens_takes_one_forward(name: str) -> None:
    """At the published widths it stays within the budget: two forwards would launch all layers once more."""
    layers = build(name, device="meta", dtype=torch.bfloat16).model.model.language_model.layers
    assert default_chunk(list(layers)) == 512
    assert default_chunk(list(layers), held=2**20) < 256

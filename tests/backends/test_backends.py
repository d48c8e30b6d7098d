"""Which backend takes an operation, what is said where none can, and that the explanation is the same on each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import pytest
import torch
import zoo

from dexar_fast import BackendError, Explainer, InputError
from dexar_fast.backends import cpp, operands, ops, plan
from dexar_fast.cli.doctor import installed as doctor

OPERATIONS = ("head_score", "aggregate", "layer_tail_vjp", "kv_append", "kv_copy")
SCORING = ("head_score", "aggregate")
BOUND = {torch.float32: 1e-5, torch.bfloat16: 3 * torch.finfo(torch.bfloat16).eps}


def scoring_backend(name: str, **knobs: Any) -> str:
    """The one backend of both scoring operations."""
    (backend,) = {choice.backend for choice in plan.plan(name, **knobs) if choice.op in SCORING}
    return backend


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(plan.ENVIRONMENT, raising=False)


@pytest.mark.parametrize("name", ["auto", "torch", "cpp"])
def test_every_operation_has_a_backend_and_a_reason(name: str) -> None:
    choices = plan.plan(name)
    assert tuple(choice.op for choice in choices) == OPERATIONS
    assert all(choice.backend in plan.BACKENDS and choice.reason for choice in choices)


def test_auto_takes_cpp_for_what_it_covers() -> None:
    assert scoring_backend("auto") == "cpp"
    for knobs in ({"head_score": "mean"}, {"head_score": ("topk", 2)}, {"map_filter": ("rank", 5)}, {"device": "cuda"}):
        assert scoring_backend("auto", **knobs) == "torch"


@pytest.mark.skipif(find_spec("triton") is None, reason="needs triton")
def test_triton_is_taken_on_a_gpu_by_name() -> None:
    assert scoring_backend("triton", device="cuda") == "triton"


def tail_backend(name: str, **knobs: Any) -> str:
    (choice,) = (choice for choice in plan.plan(name, **knobs) if choice.op == "layer_tail_vjp")
    assert choice.backend == plan.tail_step(name, knobs.get("device", "cpu"))
    return choice.backend


def test_the_layer_tail_has_kernels_whatever_the_score() -> None:
    assert tail_backend("auto") == tail_backend("auto", head_score="mean") == tail_backend("cpp") == "cpp"
    assert tail_backend("torch") == tail_backend("auto", device="cuda") == tail_backend("auto", device="mps") == "torch"


@pytest.mark.skipif(find_spec("triton") is None, reason="needs triton")
def test_the_layer_tail_takes_triton_by_name() -> None:
    assert tail_backend("triton", device="cuda") == "triton"


@pytest.mark.parametrize(("name", "device"), [("cpp", "cuda"), ("triton", "cpu")])
def test_a_layer_tail_is_refused_by_a_backend_that_cannot_take_it(name: str, device: str) -> None:
    with pytest.raises(BackendError, match=f"'{name}' cannot run: .* not on {device}; use backend='torch'"):
        plan.tail_step(name, device)


def test_auto_takes_torch_where_the_extension_is_missing(without_extension: None) -> None:
    with fresh():
        assert scoring_backend("auto") == tail_backend("auto") == "torch"
        assert "not built" in plan.plan()[0].reason
        with pytest.raises(BackendError, match=r"'cpp' cannot run: .*not built.*use backend='torch'"):
            plan.plan("cpp")


@contextmanager
def fresh() -> Iterator[None]:
    """What was found out about the machine is forgotten before and after."""
    known = plan._scoring, plan._tail, cpp.obstacle
    for function in known:
        function.cache_clear()
    yield
    for function in known:
        function.cache_clear()


@pytest.mark.parametrize(
    ("name", "knobs", "words"),
    [
        ("triton", {}, "on cuda, not on cpu"),
        ("triton", {"device": "cuda", "map_filter": ("rank", 5)}, "head_score='max' without map_filter only"),
        ("cpp", {"device": "cuda"}, "on cpu, not on cuda"),
        ("cpp", {"head_score": "mean"}, "head_score='max' without map_filter only"),
        ("cpp", {"map_filter": ("rank", 5)}, "head_score='max' without map_filter only"),
    ],
)
def test_a_backend_that_cannot_run_is_refused(name: str, knobs: dict[str, Any], words: str) -> None:
    with pytest.raises(BackendError, match=f"{name}.*{words}.*use backend='torch'"):
        plan.plan(name, **knobs)


def test_a_layer_is_refused_by_a_backend_that_cannot_score_it() -> None:
    keys = operands.Keys.of(torch.arange(2), torch.arange(2, 5), torch.ones(3, 5, dtype=torch.bool))
    u, value = torch.ones(3, 2, 4), torch.ones(2, 5, 4)
    with pytest.raises(BackendError, match="head_score='max'"):
        ops.head_score(u, value, keys, operands.MapSums.zeros(u, 2), head_score="mean", backend="cpp")


def test_an_unknown_backend_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(plan.ENVIRONMENT, "fast")
    with pytest.raises(InputError, match=rf"'fast' in the environment's {plan.ENVIRONMENT}: choose auto"):
        plan.plan()
    monkeypatch.setenv(plan.ENVIRONMENT, "")
    assert plan.plan() == plan.plan("auto")


@pytest.fixture
def forgotten() -> Iterator[None]:
    """What a process found out about its CPU."""
    cpp.best_instruction_set.cache_clear()
    yield
    cpp.best_instruction_set.cache_clear()


@pytest.mark.usefixtures("forgotten")
def test_the_environment_holds_the_extension_to_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cpp.ENVIRONMENT, "portable")
    assert cpp.best_instruction_set() == "portable"
    assert "portable" in doctor._extension()[0].note


@pytest.mark.usefixtures("forgotten")
def test_instructions_that_this_cpu_has_not_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cpp.ENVIRONMENT, "sse9")
    with pytest.raises(BackendError, match="DEXAR_FAST_INSTRUCTIONS is 'sse9': this machine offers portable"):
        cpp.best_instruction_set()


def test_an_unknown_backend_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'fast'.*auto, torch, cpp, triton"):
        plan.plan("fast")


def test_the_environment_decides_for_auto_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(plan.ENVIRONMENT, "torch")
    assert scoring_backend("auto") == "torch"
    assert scoring_backend("cpp") == "cpp"


@pytest.mark.parametrize("mode", ["paper", "official"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "gemma3"])
def test_explanations_are_the_same_on_every_backend(family: str, dtype: torch.dtype, mode: str) -> None:
    """In bfloat16 to a few of its roundings: the tail's kernels round once where torch does at every step."""
    model, inputs = zoo.build(family, dtype)
    found, wanted = (
        Explainer(model, mode=mode, backend=backend).explain_inputs(inputs, target_ids=[20, 30, 40])
        for backend in ("cpp", "torch")
    )
    assert (found.metadata["backend"], wanted.metadata["backend"]) == ("cpp", "torch")
    for array in ("visual_scores", "text_scores", "token_weights", "token_maps", "unfiltered_token_maps"):
        expected = getattr(wanted, array)
        largest = wanted.visual_scores if array == "token_weights" else expected  # they are differences of scores
        assert (getattr(found, array) - expected).abs().max() <= BOUND[dtype] * largest.abs().max(), array

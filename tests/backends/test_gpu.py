"""What only a GPU can show: the same maps as on the CPU, times by its clock, its memory, the suite of benchmarks."""

from pathlib import Path
from typing import Any

import pytest
import torch
from capture import Forward, chunks_run_by
from kernel_cases import CASES, MAPS, check, name, problem, run
from kv_cases import CASES as KV_CASES
from kv_cases import COPIES, check_append, check_copies
from kv_cases import name as kv_name
from tail_cases import GATED_CASES, NORM_CASES, check_bad_values, check_gated, check_norm, gated_problem, norm_problem
from tail_cases import name as tail_name

from bench import command, gates, results
from bench.gpu.suite import BENCHMARKS
from bench.groups import Benchmark
from bench.load import Load
from bench.options import Options
from bench.timing import cuda_timer
from dexar_fast import Explainer
from dexar_fast.attribution.sums import LayerSums
from dexar_fast.attribution.tails import vjp
from dexar_fast.backends import cuda, operators, ops
from dexar_fast.backends.cpp import Scored
from dexar_fast.kvcache.cache import PoolCache
from dexar_fast.kvcache.pool import KVPool
from dexar_fast.model import flash
from dexar_fast.model.masks import causal
from dexar_fast.profile.dimensions import DIMENSIONS
from dexar_fast.profile.measure import measure
from dexar_fast.profile.recording.peak import peak
from dexar_fast.profile.recording.timeline import STAGES
from dexar_fast.profile.shapes import build
from dexar_fast.profile.workload import workload

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("case", [case for case in CASES if case["dtype"] != torch.float64], ids=name)
def test_triton_kernels_equal_the_reference(case: dict[str, Any]) -> None:
    given = problem(case)
    check(run(on_the_gpu, given), given)


def on_the_gpu(*arguments: Any) -> Scored:
    there = [moved(x) if isinstance(x, torch.Tensor) else x for x in arguments]
    scores = operators.head_score(*there)
    for here, summed in zip(arguments[MAPS], there[MAPS], strict=True):
        here.copy_(summed)
    return tuple(x.cpu() for x in scores)  # type: ignore[return-value]


def moved(x: torch.Tensor) -> torch.Tensor:
    """On the GPU, with the strides it had."""
    there = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="cuda")
    return there.copy_(x)


def norm_on_the_gpu(x: Any, grad: Any, scale: Any, eps: float, residual: Any, centred: bool) -> torch.Tensor:
    there = [None if given is None else moved(given) for given in (x, grad, scale, residual)]
    return vjp.norm_vjp(*there[:3], eps, there[3], centred=centred, backend="triton").cpu()


def gated_on_the_gpu(grad: Any, gate: Any, up: Any, activation: str) -> tuple[torch.Tensor, torch.Tensor]:
    of_gate, of_up = vjp.gated_vjp(moved(grad), moved(gate), moved(up), activation, backend="triton")
    return of_gate.cpu(), of_up.cpu()


@pytest.mark.parametrize("case", [case for case in NORM_CASES if torch.float64 not in case["dtypes"]], ids=tail_name)
def test_triton_norms_equal_the_reference(case: dict[str, Any]) -> None:
    given = norm_problem(case)
    check_norm(norm_on_the_gpu(*given.arguments), given)


@pytest.mark.parametrize("case", [case for case in GATED_CASES if case["dtype"] != torch.float64], ids=tail_name)
def test_triton_products_equal_the_reference(case: dict[str, Any]) -> None:
    given = gated_problem(case)
    check_gated(gated_on_the_gpu(*given.arguments), given)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_bad_values_in_the_tail_reach_all_that_they_enter_and_nothing_else(dtype: torch.dtype) -> None:
    check_bad_values(norm_on_the_gpu, gated_on_the_gpu, dtype)


@pytest.mark.parametrize("case", KV_CASES, ids=kv_name)
def test_triton_appends_as_the_reference(case: dict[str, Any]) -> None:
    check_append(operators.kv_append, case, "cuda")


@pytest.mark.parametrize("backend", ["cuda", "triton", "torch"])
@pytest.mark.parametrize("copies", COPIES.values(), ids=COPIES.keys())
def test_slots_are_copied_as_by_the_reference(copies: list[tuple[int, int, int]], backend: str) -> None:
    def copy(tensors: list[torch.Tensor], copies: list[tuple[int, int, int]]) -> None:
        layers = list(zip(tensors[::2], tensors[1::2], strict=True))
        if backend == "cuda":
            return cuda.kv_copy(tensors, copies)
        if backend == "triton":
            from dexar_fast.kernels import kv_cache

            return kv_cache.kv_copy(layers, copies)
        ops.kv_copy(layers, copies, backend=backend)

    if backend == "cuda" and cuda.obstacle():
        pytest.skip(f"CUDA C++: {cuda.obstacle()}")
    check_copies(copy, copies, (64, 60, 24, 6, 1, 128) * 50, "cuda")


@pytest.mark.parametrize("backend", ["auto", "triton", "torch"])
def test_a_pool_holds_what_it_is_given_and_moves_it(backend: str) -> None:
    """Two forks that grow: the second is copied, by the backend, and both go on."""
    pool = KVPool(64, 4, backend=backend)
    states = torch.randn(2, 1, 3, 6, 60, device="cuda", dtype=torch.bfloat16)
    with PoolCache(pool) as cache:
        cache.update(*states[..., :5, :], 0)
        fork = cache.fork()
        found = cache.update(*states[..., 5:, :], 0), fork.update(*-states[..., 5:, :], 0)
        torch.testing.assert_close(torch.stack(found[0]), states, rtol=0, atol=0)
        torch.testing.assert_close(torch.stack(found[1])[..., :5, :], states[..., :5, :], rtol=0, atol=0)
        torch.testing.assert_close(torch.stack(found[1])[..., 5:, :], -states[..., 5:, :], rtol=0, atol=0)


def test_explanations_are_the_same_on_triton() -> None:
    model, inputs_for = build("llava-1.5-7b", "cuda", torch.float32, tiny=True)
    found, wanted = (
        Explainer(model, backend=backend).explain_inputs(inputs_for(), target_ids=[20, 30, 40])
        for backend in ("triton", "torch")
    )
    for array in (*gates.COMPARED, "sequence_map"):
        torch.testing.assert_close(getattr(found, array), getattr(wanted, array), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("heads", "kv_heads", "queries", "keys"), [(32, 32, 64, 700), (28, 4, 7, 1025), (2, 1, 2, 3)])
def test_flash_attention_of_a_chunk_ends_at_the_last_key(
    heads: int, kv_heads: int, queries: int, keys: int, dtype: torch.dtype
) -> None:
    query, key, value = (
        torch.randn(1, h, n, 128).to("cuda", dtype) for h, n in ((heads, queries), (kv_heads, keys), (kv_heads, keys))
    )
    assert flash.serves(query, key)
    there = [x.cpu().double().repeat_interleave(heads // x.shape[1], 1) for x in (query, key, value)]
    mask = causal(queries, keys, torch.device("cpu"))
    expected = torch.nn.functional.scaled_dot_product_attention(*there, attn_mask=mask)
    torch.testing.assert_close(flash.attend(query, key, value, 128**-0.5).cpu().double(), expected, rtol=0, atol=0.03)


@pytest.mark.parametrize("name", ["llava-1.5-7b", "qwen2.5-vl-7b"])
@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_a_chunk_of_fixed_shape_is_held_by_a_cuda_graph(backend: str, name: str) -> None:
    """Recorded without running, then replayed over results that were poisoned."""
    model, inputs_for = build(name, "cuda", torch.float32, tiny=True)
    pool = KVPool(2048, backend="triton" if backend == "triton" else "auto")
    explainer = Explainer(model, backend=backend, chunk_size=4, pool=pool)
    inputs, targets = inputs_for(), [20, 30, 40, 50, 60, 70, 80, 90]
    expected = [explainer.explain_inputs(inputs, target_ids=targets) for _ in range(2)][1]

    def run(forward: Forward) -> LayerSums:
        torch.cuda.synchronize()
        with torch.cuda.stream(torch.cuda.Stream()):  # Triton compiles, cuBLAS takes its workspace
            forward()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            sums = forward()
        for maps in sums._maps.values():
            maps.token_map.fill_(torch.nan), maps.unfiltered_map.fill_(torch.nan)
        graph.replay()
        torch.cuda.synchronize()
        return sums

    with chunks_run_by(run) as sizes:
        found = explainer.explain_inputs(inputs, target_ids=targets)
    assert sizes == [4, 4]
    for array in (*gates.COMPARED, "sequence_map"):
        torch.testing.assert_close(getattr(found, array), getattr(expected, array), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", DIMENSIONS)
def test_maps_are_those_of_the_cpu(name: str) -> None:
    targets = [20, 30, 40, 50, 60]
    found, expected = (
        Explainer(model.to(device), chunk_size=2).explain_inputs(inputs, target_ids=targets)
        for device in ("cuda", "cpu")
        for model, inputs_for in [build(name, "cpu", torch.float64, tiny=True)]
        for inputs in [inputs_for()]
    )
    for array in (*gates.COMPARED, "sequence_map"):
        torch.testing.assert_close(getattr(found, array), getattr(expected, array), rtol=1e-5, atol=1e-8)


def test_the_explanation_equals_three_other_ways() -> None:
    assert all(gate.green for gate in gates.same_arrays(Options(device="cuda")))


def test_half_precision_is_explained_as_it_runs() -> None:
    built = build("llava-1.5-7b", "cuda", torch.bfloat16, tiny=True)
    explanation = Explainer(built.model).explain_inputs(built.inputs_for(), max_new_tokens=8)
    assert explanation.token_maps.isfinite().all()
    assert explanation.token_maps.dtype == torch.float32


def test_events_time_the_work_between_them() -> None:
    left = torch.randn(512, 512, device="cuda")
    assert 0 < cuda_timer()(lambda: left @ left) < 10


def test_peak_is_what_torch_allocated() -> None:
    device = torch.device("cuda")
    _, found = peak(lambda: torch.ones(2**26, dtype=torch.uint8, device=device).sum(), device)
    assert found is not None
    assert 2**26 <= found < 2**26 + 2**22


def test_profile_covers_the_devices_time() -> None:
    report = measure(workload("llava-512", new_tokens=8, device="cuda"), rounds=2)
    assert {row["name"] for row in report["stages"]} == STAGES.keys() - {"processor"}
    assert report["memory"]["peak"] > 0
    assert sum(row["seconds"] for row in report["stages"]) == pytest.approx(report["coverage"] * report["wall"])


@pytest.mark.parametrize("suite", BENCHMARKS, ids=lambda suite: suite.name)
def test_the_suite_runs(suite: Benchmark, tmp_path: Path) -> None:
    path = command.run(suite, Options(quick=True, rounds=1, device="cuda"), Load(0.0, 0.0), tmp_path)
    assert results.read(path)["groups"]

"""`dexar-fast profile`: stages, counts, memory, named shapes, and the command on the embedded model. No speeds."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from dexar_fast import Explainer, InputError
from dexar_fast.cli import app
from dexar_fast.profile.dimensions import DIMENSIONS
from dexar_fast.profile.limits import Limits, limits
from dexar_fast.profile.measure import measure
from dexar_fast.profile.recording import peak as peaks
from dexar_fast.profile.recording.counting import Counter
from dexar_fast.profile.recording.hooks import inner_stages
from dexar_fast.profile.recording.peak import peak
from dexar_fast.profile.recording.timeline import STAGES, Timeline, recorded
from dexar_fast.profile.shapes import build
from dexar_fast.profile.show import show
from dexar_fast.profile.workload import Workload, workload
from dexar_fast.stages import Recorder, stage

LAYERS = 2
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def small() -> Workload:
    """Two layers, nine visual tokens."""
    built = build("llava-512", layers=LAYERS, grid=3, width=64)
    inputs, length = built.inputs_for(), {"max_new_tokens": 5, "do_sample": False}
    explainer = Explainer(built.model, chunk_size=2)
    about = {"model": "small", "model_class": "LLaVA", "dtype": "float32", "device": "cpu", "new_tokens": 5}
    return Workload(
        built.model,
        lambda: explainer.explain_inputs(inputs, **length),
        lambda: built.model.generate(**inputs, **length),
        lambda size: explainer.explain_batch_inputs([(inputs, None)] * size, size, **length),
        about | {"prompt_tokens": 53, "visual_tokens": 9},
    )


@pytest.fixture(scope="module")
def report(small: Workload) -> dict[str, Any]:
    return measure(small, rounds=2)


def ticking() -> Recorder:
    """A recorder whose clock goes on by one whenever it is read."""
    return Recorder(itertools.count().__next__)


def durations(recorder: Recorder) -> list[tuple[str, float]]:
    return [(name, after - before) for (_, before), (name, after) in itertools.pairwise(recorder.marks)]


def test_a_stage_nobody_records_is_one_shared_object_that_does_nothing() -> None:
    with stage("VJP") as nothing:
        assert nothing is None
    assert stage("VJP") is stage("scoring")


def test_time_belongs_to_the_innermost_stage_and_all_of_it_to_some() -> None:
    recorder = ticking()
    with recorder.recording(), stage("a"):
        with stage("b"), stage("c"):
            pass
        with stage("b"):
            pass
    found = Timeline(durations(recorder))
    assert [name for name, _ in found.segments] == ["", "a", "b", "c", "b", "a", "b", "a", ""]
    assert found.stages == {"a": 3, "b": 3, "c": 1}
    assert found.wall == recorder.marks[-1][1] - recorder.marks[0][1] == 9
    assert found.coverage == 7 / 9


def test_a_stage_ends_when_the_work_in_it_raises() -> None:
    recorder = ticking()
    with pytest.raises(ZeroDivisionError), recorder.recording(), stage("a"):
        raise ZeroDivisionError
    assert recorder.open == []
    assert stage("b") is stage("c")


def test_first_token_is_after_the_prefill_and_first_map_after_the_first_chunk() -> None:
    names = ["", "transfer", "prefill", "vision", "prefill", "decode", "chunk forward", "transfer", "transfer"]
    found = Timeline([(name, 10.0**n) for n, name in enumerate(names)])
    assert found.first_token == 11111
    assert found.first_map == 11111111
    assert Timeline([("decode", 1.0)]).first_token is None
    assert Timeline([("transfer", 1.0)]).first_map is None


def test_an_explanation_goes_through_every_stage_of_the_list(small: Workload) -> None:
    small.explain()  # the first prompt of a model is run under its own attention, too
    found = recorded(small.explain, small.model)
    assert found.stages.keys() == STAGES.keys() - {"processor"}
    names = [name for name, _ in found.segments]
    assert names.count("VJP") == LAYERS * 3  # five tokens in chunks of two
    assert names.count("scoring") == (LAYERS + 1) * 3  # a chunk ends with the layers that are scored together
    assert names.count("vision") == 1
    assert names.index("vision") < names.index("decode") < names.index("chunk forward")
    assert found.wall == pytest.approx(sum(found.stages.values()) + dict_of(found.segments)[""])


def dict_of(segments: list[tuple[str, float]]) -> dict[str, float]:
    return {name: sum(s for n, s in segments if n == name) for name, _ in segments}


def test_recording_leaves_the_model_and_the_result_as_they_were(small: Workload) -> None:
    before = {name: list(vars(module)) for name, module in small.model.named_modules()}
    expected = small.explain()
    with inner_stages(small.model, ticking()) as _:
        found = small.explain()
    assert {name: list(vars(module)) for name, module in small.model.named_modules()} == before
    assert torch.equal(found.token_maps, expected.token_maps)


def test_a_forward_that_was_replaced_on_the_object_is_put_back(small: Workload) -> None:
    own = small.model.forward
    small.model.forward = own
    try:
        with inner_stages(small.model, ticking()):
            assert small.model.forward is not own
        assert vars(small.model)["forward"] is own
    finally:
        del small.model.forward


def test_operations_are_counted_towards_the_stage_they_run_in_backward_included() -> None:
    recorder = ticking()
    left, right = torch.randn(3, 5, requires_grad=True), torch.randn(5, 7)
    with recorder.recording(), Counter(recorder) as counted:
        with stage("prefill"):
            product = left @ right
        with stage("VJP"):
            torch.autograd.grad(product, left, torch.ones(3, 7))
        product.view(21).detach()
    assert counted.flops["prefill"] == counted.flops["VJP"] == 2 * 3 * 5 * 7
    assert counted.bytes["prefill"] == 4 * (3 * 5 + 5 * 7 + 3 * 7)
    assert counted.bytes[""] == 0


def test_attention_and_lookups_are_counted() -> None:
    recorder = ticking()
    query, key, value = torch.randn(1, 2, 3, 8), torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8)
    with recorder.recording(), Counter(recorder) as counted:
        with stage("decode"):
            torch.nn.functional.scaled_dot_product_attention(query, key, value)
        with stage("vision"):
            torch.nn.functional.embedding(torch.tensor([1, 2]), torch.randn(1000, 4))
    assert counted.flops["decode"] == 2 * 2 * 2 * 3 * 5 * 8
    assert 2 * 2 * 4 * 4 <= counted.bytes["vision"] < 1000 * 4 * 4 * 3


def test_peak_is_what_the_work_held_at_most() -> None:
    size = 2**26

    def work() -> int:
        block = torch.ones(size, dtype=torch.uint8)
        return len(block)

    result, found = peak(work, CPU)
    assert result == size
    assert found is None or 0.9 * size < found < 1.5 * size


def test_peak_says_where_it_cannot_be_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peaks, "RESET", tmp_path / "no folder" / "clear_refs")
    assert peak(lambda: 3, CPU) == (3, None)


def test_the_limit_is_the_slower_of_arithmetic_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Limits(flops_per_second=100.0, bytes_per_second=10.0)
    assert machine.seconds(200, 10) == 2
    assert machine.seconds(200, 50) == 5
    monkeypatch.setattr("dexar_fast.profile.limits.SIDE", {"cpu": 16})
    monkeypatch.setattr("dexar_fast.profile.limits.COPIED", {"cpu": 1024})
    found = limits(CPU, torch.bfloat16)
    assert found.flops_per_second > 0
    assert found.bytes_per_second > 0


@pytest.mark.parametrize("name", DIMENSIONS)
def test_a_tiny_model_of_every_named_shape_is_explained(name: str) -> None:
    built = build(name, tiny=True)
    inputs = built.inputs_for(prompt_tokens=700)
    assert inputs["input_ids"].shape == (1, 700)
    found = Explainer(built.model).explain_inputs(inputs, target_ids=[20, 30])
    assert found.token_maps.isfinite().all()
    assert found.token_maps.shape[1] == int((inputs["input_ids"] == built.model.config.image_token_id).sum())


@pytest.mark.parametrize(
    ("name", "billions"), [("llava-1.5-7b", 7.06), ("qwen2.5-vl-7b", 8.29), ("paligemma-3b", 2.92)]
)
def test_named_shapes_have_the_published_size(name: str, billions: float) -> None:
    built = build(name, "meta", torch.bfloat16)
    assert sum(p.numel() for p in built.model.parameters()) / 1e9 == pytest.approx(billions, abs=0.01)


def test_a_named_shape_has_the_same_weights_each_time_and_leaves_the_random_state() -> None:
    state = torch.random.get_rng_state()
    first, second = (build("llava-512", layers=1, grid=2, width=64).model for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_qwen_takes_an_image_of_any_size() -> None:
    inputs = build("qwen2.5-vl-7b", tiny=True).inputs_for(image_size=(280, 560))
    assert inputs["image_grid_thw"].tolist() == [[1, 20, 40]]
    assert int((inputs["input_ids"] == 995).sum()) == 10 * 20


@pytest.mark.parametrize(
    ("name", "build_options", "inputs_options", "message"),
    [
        ("gpt", {}, {}, "unknown shape"),
        ("paligemma-3b", {"layers": 3}, {}, "only llava-512 takes dimensions"),
        ("llava-512", {"grid": 4}, {"image_size": 100}, "leave the image size out"),
        ("llava-512", {"grid": 4}, {"prompt_tokens": 17}, "does not hold an image"),
    ],
)
def test_what_a_shape_does_not_take_is_refused(
    name: str, build_options: dict[str, Any], inputs_options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        build(name, **build_options).inputs_for(**inputs_options)


def test_the_embedded_model_takes_a_prompt_of_the_length_asked_for() -> None:
    found = workload(None, prompt_tokens=180, new_tokens=7, device="cpu")
    assert abs(found.about["prompt_tokens"] - 180) <= 2
    assert len(found.explain().token_ids) == 7
    assert found.generate().shape[1] == found.about["prompt_tokens"] + 7
    with pytest.raises(InputError, match="ask for more"):
        workload(None, prompt_tokens=20)


def test_stages_sum_to_the_wall_time(report: dict[str, Any]) -> None:
    named = sum(row["seconds"] for row in report["stages"])
    assert named == pytest.approx(report["coverage"] * report["wall"])
    assert sum(row["share"] for row in report["stages"]) == pytest.approx(report["coverage"])
    assert 0 < report["coverage"] <= 1


def test_rates_follow_from_counts_and_seconds(report: dict[str, Any]) -> None:
    machine = Limits(**report["limits"])
    for row in report["stages"]:
        assert row["flops_per_second"] == pytest.approx(row["flops"] / row["seconds"])
        assert row["of_limit"] == pytest.approx(machine.seconds(row["flops"], row["bytes"]) / row["seconds"])
    working = {row["name"] for row in report["stages"] if row["flops"]}
    assert {"vision", "prefill", "decode", "chunk forward", "VJP", "scoring"} <= working


def test_memory_is_told_by_kind(small: Workload, report: dict[str, Any]) -> None:
    memory = report["memory"]
    text = small.model.config.text_config
    keys = report["about"]["prompt_tokens"] + 4  # the last token is explained, but nothing follows that reads it
    assert memory["kv_cache"] == 2 * LAYERS * 4 * text.num_key_value_heads * text.head_dim * keys
    assert memory["weights"] >= sum(p.nbytes for p in small.model.parameters())
    assert memory["results"] > 0


def test_a_report_is_plain_json_and_is_shown(report: dict[str, Any]) -> None:
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    console = Console(width=120, record=True)
    show(report | {"memory": report["memory"] | {"peak": None}}, console)
    text = console.export_text()
    assert all(row["name"] in text for row in report["stages"])
    assert "not measured here" in text


def test_profile_of_the_embedded_model_from_the_command_line(tmp_path: Path) -> None:
    files = {
        option: tmp_path / f"{option}.{kind}" for option, kind in (("json", "json"), ("trace", "json"), ("plot", "png"))
    }
    options = itertools.chain.from_iterable((f"--{option}", str(path)) for option, path in files.items())
    result = CliRunner().invoke(
        app.app, ["profile", "--tokens", "3", "--rounds", "1", "--batch", "1,3", *options], env={"COLUMNS": "150"}
    )
    assert result.exit_code == 0, result.output
    report = json.loads(files["json"].read_text())
    assert {row["name"] for row in report["stages"]} == STAGES.keys()
    assert (report["about"]["visual_tokens"], report["about"]["places"]) == (144, "declared")
    assert [row["size"] for row in report["batches"]] == [1, 3]
    assert all(row["generated"] > row["both"] < row["explained"] for row in report["batches"])
    events = {event.get("name") for event in json.loads(files["trace"].read_text())["traceEvents"]}
    assert {"vision", "VJP", "scoring"} <= events
    assert files["plot"].read_bytes().startswith(b"\x89PNG")
    assert sorted(tmp_path.iterdir()) == sorted(files.values())
    assert all(name in result.output for name in ("VJP", "tokens explained per second", "in batches of", "kv cache"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plot", "picture.jpg"], "name it *.png"),
        (["--json", "no/such/folder/a.json"], "there is no folder"),
        (["--json", "."], "is a folder"),
        (["--json", "/proc/a.json"], "cannot write /proc/a.json"),
        (["--json", "a.png", "--plot", "a.png"], "have one path"),
        (["--batch", "4,none"], "takes sizes of batches"),
        (["--batch", "4,0"], "takes sizes of batches"),
        (["llava-512", "--image-size", "20"], "leave the image size out"),
        (["--image-size", "0"], "give at least 1"),
        (["--image-size", "-5"], "give at least 1"),
        (["llava-512", "--dtype", "foo"], "is none of"),
        (["llava-512", "--device", "nope"], "cannot build llava-512"),
    ],
)
def test_what_profile_cannot_do_is_one_line(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app.app, ["profile", *arguments])
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1

"""EAGLE over a function: the search it makes, its record, its threads, and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from answering_server import PROMPT, TOKENS, picture, probabilities, serving
from paths import ROOT
from PIL import Image

from dexar_fast import Explainer, Explanation, FileError, InputError, NumericalError
from dexar_fast.methods.eagle.black_box import Endpoint, explain_black_box
from dexar_fast.methods.eagle.black_box.record import HEADER, Record, key_of
from dexar_fast.methods.eagle.method import Eagle

EXACT = Eagle(regions=9, variant="exact")


class Counted:
    """The function, with the number of its calls; it fails from a call on."""

    def __init__(self, fails_at: int | None = None, model: str = "m") -> None:
        self.calls = 0
        self.model = model
        self._fails_at = fails_at

    def __call__(self, shown: Image.Image, prompt: str, tokens: list[str]) -> list[float]:
        self.calls += 1
        if self._fails_at and self.calls >= self._fails_at:
            raise KeyboardInterrupt
        return probabilities(shown, prompt, tokens)


def details(found: Explanation) -> dict[str, Any]:
    return found.diagnostics["eagle"]


def greedy(image: Image.Image, labels: np.ndarray) -> list[int]:
    """The exact search written out in float64, on pictures that are put together here."""
    order: list[int] = []
    pixels, regions = np.asarray(image), range(labels.max() + 1)

    def mean(regions: list[int]) -> float:
        shown = pixels * np.isin(labels, regions)[..., None].astype(np.uint8)
        return float(np.mean(probabilities(Image.fromarray(shown))))

    while len(order) < len(regions):
        left = [r for r in regions if r not in order]
        values = [mean([*order, r]) + 1 - mean([other for other in regions if other not in (*order, r)]) for r in left]
        order.append(left[int(np.argmax(values))])
    return order


def test_a_function_is_searched_exactly() -> None:
    image = picture()
    found = explain_black_box(image, PROMPT, TOKENS, probabilities, EXACT)
    assert details(found)["order"] == greedy(image, found.grids[0].labels)
    np.testing.assert_allclose(details(found)["full"], probabilities(image), rtol=1e-6)
    np.testing.assert_allclose(details(found)["empty"], [0.05] * 4, rtol=1e-6)
    assert details(found)["unseen_regions"] == []
    assert found.tokens == TOKENS and found.token_ids.tolist() == [-1] * 4
    assert found.token_maps.shape == (4, 9) and found.text == " A red circle."


def test_it_finds_what_a_local_model_finds() -> None:
    """The embedded model behind a function that runs one picture at a time, softmax in float64."""
    local = Explainer.from_pretrained()
    prompt, answer = "Describe the image.", " A red circle."
    model, processor = local.model, local.processor
    image = Image.open(ROOT / "dexar_fast" / "assets" / "sample.png").convert("RGB")
    labels = np.arange(image.width)[None].repeat(image.height, 0) * 5 // image.width
    method = Eagle(labels=labels, variant="exact")
    expected = local.with_method(method).explain(image, prompt, answer)
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}], add_generation_prompt=True
    )

    @torch.no_grad()
    def forward(shown: Image.Image, _: str, tokens: list[str]) -> list[float]:
        inputs = processor(images=shown, text=text, return_tensors="pt")
        ids = torch.cat([inputs["input_ids"], expected.token_ids[None]], 1)
        logits = model(input_ids=ids, pixel_values=inputs["pixel_values"]).logits[0].double()
        rows = torch.arange(len(tokens)) + inputs["input_ids"].shape[1] - 1
        return logits.softmax(-1)[rows, expected.token_ids].tolist()

    found = explain_black_box(image, prompt, expected.tokens, forward, method)
    assert details(found)["order"] == details(expected)["order"]
    for name in ("insertion", "deletion", "empty", "full"):
        np.testing.assert_allclose(details(found)[name], details(expected)[name], rtol=0, atol=1e-5)
    for name in ("sequence_map", "token_weights"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=1e-4)
    torch.testing.assert_close(found.token_maps[1:], expected.token_maps[1:], rtol=0, atol=1e-4)  # " A" is certain


def test_the_result_is_kept_and_shown_like_any_other(tmp_path: Path) -> None:
    named = Counted(model="http://somewhere a-model")
    found = explain_black_box(np.asarray(picture()), PROMPT, TOKENS, named, EXACT)
    found.save(tmp_path / "found.safetensors")
    loaded = Explanation.load(tmp_path / "found.safetensors")
    assert torch.equal(loaded.token_maps, found.token_maps) and loaded.token_ids.tolist() == [-1] * 4
    assert loaded.metadata["question"] == PROMPT and loaded.metadata["settings"]["method"] == "eagle"
    assert loaded.metadata["model"] == "http://somewhere a-model"
    loaded.to_html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text("utf-8")
    assert PROMPT in page and "eagle" in page and "How early" not in page
    assert loaded.overlay(1).size == (32, 24)


def test_some_tokens_and_one_text() -> None:
    image = picture()
    found = explain_black_box(image, PROMPT, TOKENS, probabilities, Eagle(regions=4, tokens=[-2]))
    assert details(found)["tokens"] == [2] and not found.token_maps[[0, 1, 3]].any()
    np.testing.assert_allclose(details(found)["full"], probabilities(image)[2:3], rtol=1e-6)
    whole = explain_black_box(image, PROMPT, "A red circle.", lambda *_: [0.5], Eagle(regions=4))
    assert whole.tokens == ["A red circle."] and whole.sequence_map.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_a_server_that_fails_gives_the_same(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("dexar_fast.methods.eagle.black_box.sending.FIRST_WAIT", 0.001)
    expected = explain_black_box(picture(), PROMPT, TOKENS, probabilities, EXACT)
    with serving() as server:
        server.faults = [None, 500, "drop", None, (429, {"Retry-After": "0"}), "garbage", "cut"]
        found = explain_black_box(
            picture(), PROMPT, TOKENS, Endpoint(server.url, "m", kind, timeout=30.0), EXACT, workers=3
        )
        assert len(server.seen) == details(found)["forwards"] + 5
    assert details(found)["order"] == details(expected)["order"]
    torch.testing.assert_close(found.token_maps, expected.token_maps, rtol=0, atol=1e-6)


def test_a_stopped_run_goes_on_from_its_record(tmp_path: Path) -> None:
    record = tmp_path / "record.jsonl"
    unbroken = Counted()
    expected = explain_black_box(picture(), PROMPT, TOKENS, unbroken, EXACT)
    stopped = Counted(fails_at=21)
    with pytest.raises(KeyboardInterrupt):
        explain_black_box(picture(), PROMPT, TOKENS, stopped, EXACT, record=record)
    assert len(record.read_bytes().splitlines()) == 1 + 20
    record.write_bytes(record.read_bytes()[:-9])  # as if killed within a line
    again = Counted()
    found = explain_black_box(picture(), PROMPT, TOKENS, again, EXACT, record=record)
    assert again.calls == unbroken.calls - 19
    assert torch.equal(found.token_maps, expected.token_maps)
    third = Counted()
    explain_black_box(picture(), PROMPT, TOKENS, third, Eagle(regions=9, variant="exact", tokens=[1]), record=record)
    assert third.calls < unbroken.calls - 19  # another search over the same pictures


def test_another_question_or_model_is_asked_anew(tmp_path: Path) -> None:
    record, method = tmp_path / "record.jsonl", Eagle(regions=2)
    first = Counted()
    explain_black_box(picture(), PROMPT, TOKENS, first, method, record=record)
    for image, prompt, tokens, model, known in [
        (picture(), "Another?", TOKENS, "m", 0),
        (picture(), PROMPT, [" A red", " circle", ".", "!"], "m", 0),
        (picture(), PROMPT, TOKENS, "other", 0),
        (picture(1), PROMPT, TOKENS, "m", 1),  # all of it hidden, it looks like the first
    ]:
        other = Counted(model=model)
        explain_black_box(image, prompt, tokens, other, method, record=record)
        assert other.calls == first.calls - known
    same = Counted()
    explain_black_box(picture(), PROMPT, TOKENS, same, method, record=record)
    assert same.calls == 0


def test_what_is_no_probability_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(NumericalError, match="are no probabilities"):
        explain_black_box(picture(), PROMPT, TOKENS, lambda *_: [float("nan")] * 4, record=tmp_path / "record")
    assert (tmp_path / "record").read_bytes() == HEADER


def test_a_single_worker_is_the_callers_thread() -> None:
    threads = set()

    def noted(*asked: Any) -> list[float]:
        threads.add(threading.get_ident())
        return probabilities(*asked)

    explain_black_box(picture(), PROMPT, TOKENS, noted, Eagle(regions=4))
    assert threads == {threading.get_ident()}


def test_a_record_may_end_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    record = Record(path)
    record.add("a", [0.1, 0.25])
    record.add("b", [1 / 3])
    data = path.read_bytes()
    assert Record(path).get("b") == [1 / 3] and Record(path).get("c") is None
    for length in range(len(data)):
        path.write_bytes(data[:length])
        shorter = Record(path)
        assert shorter.get("a") in (None, [0.1, 0.25]) and shorter.get("b") in (None, [1 / 3])
        shorter.add("c", [0.5])
        assert path.read_bytes().startswith(data[:length])  # nothing was taken away
        assert Record(path).get("c") == [0.5] and Record(path).get("a") == shorter.get("a")


@pytest.mark.parametrize("line", [b"[1]", b"3", b'{"key": "a"}', b'{"key": "a", "probabilities": 3}', b"\xff", b"{"])
def test_a_damaged_line_is_asked_again(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "record.jsonl"
    path.write_bytes(HEADER + line + b"\n")
    assert Record(path).get("a") is None


def test_other_files_stay_as_they_are(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    picture().save(photo)
    before = photo.read_bytes()
    for path, message in [(photo, "no record"), (tmp_path, "not a file"), (tmp_path / "no" / "r", "cannot write")]:
        with pytest.raises(FileError, match=message):
            explain_black_box(picture(), PROMPT, TOKENS, probabilities, record=path)
    assert photo.read_bytes() == before
    with pytest.raises(FileError, match="is no path"):
        explain_black_box(picture(), PROMPT, TOKENS, probabilities, record=3)


def test_the_key_tells_pictures_and_words_apart() -> None:
    keys = {
        key_of(image, asked)
        for image in (picture(), picture(1), picture().resize((24, 32)), picture().convert("L"))
        for asked in (["a", "b"], ["ab", ""], ["a, b"], ["b", "a"])
    }
    assert len(keys) == 16


def test_threads_ask_at_once_and_no_more_than_allowed() -> None:
    running, most, lock, two = 0, 0, threading.Lock(), threading.Event()

    def counted(shown: Image.Image, prompt: str, tokens: list[str]) -> list[float]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if running == 2:
            two.set()
        assert two.wait(timeout=20)  # a second call comes meanwhile
        with lock:
            running -= 1
        return probabilities(shown, prompt, tokens)

    labels = np.arange(24 * 32).reshape(24, 32) % 3
    found = explain_black_box(picture(), PROMPT, TOKENS, counted, Eagle(labels=labels), workers=2)
    assert most == 2 and details(found)["order"] == greedy(picture(), labels)


@pytest.fixture
def asked() -> Iterator[dict[str, Any]]:
    yield {"image": picture(), "prompt": PROMPT, "answer": TOKENS, "probabilities": probabilities}


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"answer": []}, InputError, "the answer is a text, or a list"),
        ({"answer": [1]}, InputError, "the answer is a text, or a list"),
        ({"method": "eagle"}, InputError, "the method must be an Eagle"),
        ({"method": Eagle(ids=[1])}, InputError, "ids belong to a local model"),
        ({"method": Eagle(tokens=[4])}, InputError, "must name tokens of the answer, 0 to 3"),
        ({"prompt": None}, InputError, "the prompt must be a text, not a NoneType"),
        ({"probabilities": lambda *_: 0.5}, InputError, "must return a list of probabilities, not 0.5"),
        ({"probabilities": lambda *_: "text"}, InputError, "must return a list of probabilities, not 'text'"),
        ({"workers": 0}, InputError, "workers is a whole number of at least 1, not 0"),
        ({"workers": True}, InputError, "workers is a whole number"),
        ({"probabilities": lambda *_: [0.5]}, InputError, "1 probabilities were returned for 4 tokens"),
        ({"probabilities": lambda *_: [0.5, 0.5, float("nan"), 0.5]}, NumericalError, "are no probabilities"),
        ({"probabilities": lambda *_: [0.5, 0.5, 1.5, 0.5]}, NumericalError, "are no probabilities"),
        ({"image": "nowhere.png"}, InputError, "nowhere.png"),
    ],
)
def test_what_means_nothing_is_refused(asked: dict[str, Any], wrong: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        explain_black_box(**asked | wrong)


def test_what_a_function_raises_comes_through() -> None:
    def broken(*_: Any) -> list[float]:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        explain_black_box(picture(), PROMPT, TOKENS, broken, workers=3)

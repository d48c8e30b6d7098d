"""What is written to a folder while an answer is explained: equal, readable at any time, and left by any end."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small_llava
import torch
from alike import assert_same
from paths import ROOT
from PIL import Image
from transformers.generation.streamers import BaseStreamer

from dexar_fast import Explainer, Explanation, FileError
from dexar_fast.attribution.sums import Attribution
from dexar_fast.generation.result_builder import ResultBuilder
from dexar_fast.kvcache.pool import KVPool
from dexar_fast.results import shards
from dexar_fast.results.assembly import ResultHeader
from dexar_fast.results.schema import ARRAYS

PROMPT = "what is on the left"
OPTIONS: dict[str, Any] = {"max_new_tokens": 20, "min_new_tokens": 20, "do_sample": False}
LONG = 300


@pytest.fixture
def llava() -> Explainer:
    processor = small_llava.processor()
    return Explainer(small_llava.model(processor.tokenizer, context=512), processor)


@pytest.fixture
def image() -> Image.Image:
    return small_llava.noise()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every chunk becomes a shard."""
    monkeypatch.setattr(shards, "SHARD_SECONDS", 0)


def assert_identical(found: Explanation, expected: Explanation) -> None:
    for name in ARRAYS:
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    for name in ("tokens", "grids", "diagnostics"):
        assert getattr(found, name) == getattr(expected, name)
    assert [image.tobytes() for image in found.images] == [image.tobytes() for image in expected.images]


@pytest.mark.parametrize("knobs", [{}, {"mode": "official"}, {"sequence_norm": "token"}])
@pytest.mark.parametrize("response", [None, "a red circle on the mat"])
@pytest.mark.usefixtures("at_once")
def test_a_folder_holds_what_explain_returns(
    image: Image.Image, tmp_path: Path, knobs: dict[str, Any], response: str | None
) -> None:
    processor = small_llava.processor()
    explainer = Explainer(small_llava.model(processor.tokenizer), processor, chunk_size=3, **knobs)
    options = OPTIONS if response is None else {}
    expected = explainer.explain(image, PROMPT, response, **options)
    found = explainer.explain(image, PROMPT, response, out=tmp_path / "a" / "b", **options)
    assert_identical(found, expected)
    assert found.metadata["complete"]
    loaded = Explanation.load(str(tmp_path / "a" / "b"))
    assert_identical(loaded, expected)
    assert loaded.metadata == found.metadata
    assert len(list((tmp_path / "a" / "b").glob("0*.safetensors"))) == -(-len(expected) // 3)


@pytest.mark.parametrize("chunk_size", [1, 3, 64])
@pytest.mark.usefixtures("at_once")
def test_a_folder_is_read_while_it_grows(llava: Explainer, image: Image.Image, tmp_path: Path, chunk_size: int) -> None:
    expected = llava.explain(image, PROMPT, **OPTIONS)
    stream = llava.stream(image, PROMPT, chunk_size=chunk_size, out=tmp_path, **OPTIONS)
    seen = 0
    for piece in stream:
        seen += len(piece)
        found = Explanation.load(tmp_path)
        assert len(found) >= seen
        assert found.token_ids.tolist() == expected.token_ids[: len(found)].tolist()
        torch.testing.assert_close(found.token_maps, expected.token_maps[: len(found)], rtol=1e-4, atol=1e-4)
    assert_same(Explanation.load(tmp_path), expected)
    assert_identical(stream.explanation(), Explanation.load(tmp_path))
    assert Explanation.load(tmp_path).tokens == expected.tokens
    assert Explanation.load(tmp_path).diagnostics == expected.diagnostics


def test_some_hundred_tokens_lie_in_few_shards(
    llava: Explainer, image: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"max_new_tokens": LONG, "min_new_tokens": LONG, "do_sample": False}
    token = 4 * (2 * 16 + 2 * 2 * 4)  # bytes: two maps of 16, two scores of 2 layers x 4 heads
    monkeypatch.setattr(shards, "SHARD_SECONDS", 1e9)
    monkeypatch.setattr(shards, "SHARD_BYTES", 100 * token)
    found = llava.explain(image, PROMPT, out=tmp_path, **options)  # a stream saves what it has while nobody reads
    assert len(list(tmp_path.glob("0*.safetensors"))) == 3  # 128, 128, 44
    assert_same(found, llava.explain(image, PROMPT, **options))


@pytest.mark.usefixtures("at_once")
def test_what_is_on_disk_is_not_held(tmp_path: Path) -> None:
    record = ResultBuilder(frame(), None, [1, 2], tmp_path)
    arrays = sums(3)
    held = weakref.ref(arrays.token_maps)
    record.add(torch.tensor([5, 6, 7]), arrays)
    del arrays
    gc.collect()
    assert held() is None
    assert record.explanation().tokens == ["5", "6", "7"]


def frame() -> ResultHeader:
    metadata = {"settings": {"sequence_norm": "none", "layers": [0, 1]}, "complete": False}
    return ResultHeader(torch.arange(4), (), (), [], metadata)


def sums(tokens: int) -> Attribution:
    scores, maps = torch.rand(2, tokens, 2, 3), torch.rand(2, tokens, 4)
    return Attribution(*scores, torch.ones(5, dtype=torch.long), *maps, None)


def test_an_interrupt_between_shard_and_index_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_SECONDS", 1e9)
    write, interrupted = shards.Shards.add, []

    def interrupting(self: shards.Shards, chunk: Any) -> None:
        write(self, chunk)
        if not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt

    monkeypatch.setattr(shards.Shards, "add", interrupting)
    with pytest.raises(KeyboardInterrupt), ResultBuilder(frame(), None, [1, 2], tmp_path) as record:
        record.add(torch.tensor([5, 6, 7]), sums(3))
        record.explanation()
    found = Explanation.load(tmp_path)
    assert found.tokens == ["5", "6", "7"]
    assert not found.metadata["complete"]


PROGRAM = """
import sys, time
sys.path[:0] = {paths}
import small_llava
from PIL import Image
from dexar_fast import Explainer
from dexar_fast.results import shards
shards.SHARD_SECONDS = 0
processor = small_llava.processor()
explainer = Explainer(small_llava.model(processor.tokenizer, context=512), processor, chunk_size=4)
image = Image.open({image!r})
options = dict(max_new_tokens=300, min_new_tokens=300, do_sample=False)
if {streamed}:
    for piece in explainer.stream(image, {prompt!r}, chunk_size=4, out={out!r}, **options):
        print(piece.first + len(piece), flush=True)
        time.sleep(0.02)
else:
    add = shards.Shards.add
    def slow(self, chunk):
        add(self, chunk)
        print(self.finished[1] - 4, flush=True)  # the index counts those of the last shard a moment later
        time.sleep(0.02)
    shards.Shards.add = slow
    explainer.explain(image, {prompt!r}, out={out!r}, **options)
"""


@pytest.mark.parametrize("streamed", [True, False])
def test_a_killed_run_leaves_what_was_finished(
    llava: Explainer, image: Image.Image, tmp_path: Path, streamed: bool
) -> None:
    picture, out = str(tmp_path / "image.png"), tmp_path / "out"
    image.save(picture)
    paths = [str(ROOT), str(ROOT / "tests" / "support")]
    program = PROGRAM.format(paths=paths, image=picture, prompt=PROMPT, out=str(out), streamed=streamed)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        finished = next(int(line) for line in process.stdout if int(line) >= 24)
        process.kill()
    found = Explanation.load(out)
    assert finished <= len(found) < 300
    assert not found.metadata["complete"]
    given = llava.explain_inputs(
        llava.processor(images=image, text=found.metadata["prompt"], return_tensors="pt"), found.token_ids
    )
    assert_same(found, given)
    with pytest.raises(FileError, match="holds an explanation"):
        llava.stream(image, PROMPT, out=out)


class StopAfter(BaseStreamer):
    """Ctrl-C at a token of the answer."""

    def __init__(self, tokens: int) -> None:
        self._left = tokens + 1  # the prompt comes first

    def put(self, _: torch.Tensor) -> None:
        self._left -= 1
        if not self._left:
            raise KeyboardInterrupt

    def end(self) -> None:
        raise AssertionError("it was to end before")


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("tokens", [3, 70])
def test_an_interrupt_leaves_what_was_written(image: Image.Image, tmp_path: Path, pooled: bool, tokens: int) -> None:
    processor = small_llava.processor()
    model = small_llava.model(processor.tokenizer, context=512)
    pool = KVPool(512) if pooled else None
    options = {"max_new_tokens": 100, "min_new_tokens": 100, "do_sample": False}
    with pytest.raises(KeyboardInterrupt):
        Explainer(model, processor, pool=pool).explain(
            image, PROMPT, out=tmp_path / "out", streamer=StopAfter(tokens), **options
        )
    found = Explanation.load(tmp_path / "out")
    assert len(found) == tokens - 1  # the streamer did not let the last one pass
    assert not found.metadata["complete"]
    inputs = processor(images=image, text=found.metadata["prompt"], return_tensors="pt")
    assert_same(found, Explainer(model, processor).explain_inputs(inputs, found.token_ids))
    if pool:
        assert pool.books.stats()["held"] == 0


def test_what_a_slow_reader_has_seen_is_on_disk(llava: Explainer, image: Image.Image, tmp_path: Path) -> None:
    options = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False}
    with llava.stream(image, PROMPT, chunk_size=4, out=tmp_path, **options) as pieces:
        first = next(pieces)
        found = loaded(tmp_path, seconds=60)
    assert torch.equal(found.token_ids[:4], first.token_ids)


def loaded(folder: Path, seconds: float) -> Explanation:
    """What is in a folder once something is: the index is written behind the numbers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return Explanation.load(folder)
        except FileError as error:
            assert "no token is explained yet" in str(error) and time.monotonic() < deadline
        time.sleep(0.01)


def test_a_folder_in_use_is_refused_before_anything_runs(llava: Explainer, image: Image.Image, tmp_path: Path) -> None:
    llava.explain(image, PROMPT, "a red circle", out=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for ask in (llava.explain, llava.stream):
        with pytest.raises(FileError, match="choose another folder"):
            ask(image, PROMPT, out=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    for name, message in ((tmp_path / "index.json", "cannot make"), ("a\0", "cannot make"), ("", "path is empty")):
        with pytest.raises(FileError, match=message):
            llava.explain(image, PROMPT, out=name)


def test_files_that_a_shard_would_replace_are_kept(llava: Explainer, image: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "00000.safetensors").write_text("mine")
    with pytest.raises(FileError, match="choose another folder"):
        llava.explain(image, PROMPT, "a red circle", out=tmp_path)
    assert (tmp_path / "00000.safetensors").read_text() == "mine"


def test_of_two_streams_into_one_folder_the_second_is_refused(
    llava: Explainer, image: Image.Image, tmp_path: Path
) -> None:
    first, second = (llava.stream(image, PROMPT, chunk_size=4, out=tmp_path, **OPTIONS) for _ in range(2))
    next(first)
    with pytest.raises(FileError, match="holds an explanation"):
        next(second)
    list(first)
    assert_identical(Explanation.load(tmp_path), first.explanation())
    assert len(first.explanation()) == 20


@pytest.mark.parametrize("name", ["index.json", "start.safetensors", "00000.safetensors"])
def test_a_pipe_in_a_folder_is_not_waited_for(llava: Explainer, image: Image.Image, tmp_path: Path, name: str) -> None:
    llava.explain(image, PROMPT, "a red circle", out=tmp_path)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(FileError, match=name):
        Explanation.load(tmp_path)


def test_a_disk_that_fails_ends_the_stream(
    llava: Explainer, image: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_SECONDS", 0)
    stream = llava.stream(image, PROMPT, chunk_size=2, out=tmp_path, **OPTIONS)
    next(stream)
    next(stream)

    def full(*_: Any) -> None:
        raise FileError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(shards.files, "write_atomically", full)
        with pytest.raises(FileError, match="no space left"):
            list(stream)
    assert len(Explanation.load(tmp_path)) >= 4


def test_a_folder_without_tokens_says_so(llava: Explainer, image: Image.Image, tmp_path: Path) -> None:
    record = ResultBuilder(frame(), None, [1], tmp_path)
    with pytest.raises(FileError, match="no token is explained yet"):
        Explanation.load(tmp_path)
    assert len(record) == 0


def without(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).unlink()


def cut(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-7])


def changed(**fields: Any) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        index = json.loads((folder / shards.INDEX).read_text())
        (folder / shards.INDEX).write_text(json.dumps(index | fields))

    return change


@pytest.mark.parametrize(
    "damage",
    [
        without("start.safetensors"),
        without("00001.safetensors"),
        without("index.json"),
        cut("start.safetensors"),
        cut("00001.safetensors"),
        cut("index.json"),
        changed(tokens=5),
        changed(shards=-1),
        changed(shards=10**9),
        changed(shards="2"),
        changed(unfinished=None),
        changed(grids=[{}]),
        changed(metadata=[]),
        changed(metadata={}),
        changed(text_winners=float("nan")),
        changed(images=7),
        changed(format_version=99),
        lambda folder: (folder / "index.json").write_bytes(b"\xff\xfe"),
        lambda folder: (folder / "index.json").write_text("[]"),
    ],
)
@pytest.mark.usefixtures("at_once")
def test_a_damaged_folder_is_refused(llava: Explainer, image: Image.Image, tmp_path: Path, damage: Any) -> None:
    llava.chunk_size = 4
    llava.explain(image, PROMPT, "a red circle", out=tmp_path)
    damage(tmp_path)
    with pytest.raises(FileError, match=str(tmp_path)):
        Explanation.load(tmp_path)

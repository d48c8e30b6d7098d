"""Where the visual tokens of a request lie: declared, checked, measured; and what of it is kept."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import small_llava
import torch
from PIL import Image

from dexar_fast import Explainer, Explanation
from dexar_fast.generation.places import kept, placing
from dexar_fast.generation.places.kept import Found
from dexar_fast.vision import families
from dexar_fast.vision.blocks import Block, Blocks, Prompt, UnknownLayout
from dexar_fast.vision.grid import Grid

TOKENIZER = small_llava.byte_level()
MODEL, PROCESSOR = small_llava.model(TOKENIZER), small_llava.processor(TOKENIZER)
SIZE = (240, 80)
CROP = (80, 0, 160, 80)  # the middle of the picture, which is all that the model sees


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty one, on the disk and in memory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kept, "_known", {})
    yield tmp_path


def unknown(prompt: Prompt) -> Blocks:
    raise UnknownLayout("nobody wrote it down")


def explain(monkeypatch: pytest.MonkeyPatch, family: Any, model: Any = MODEL) -> Explanation:
    """As if LLaVA were a family whose layout is this one, and nobody had tested it."""
    monkeypatch.setattr("dexar_fast.vision.geometry.named_grids", family)
    monkeypatch.delitem(families.FAMILIES, "llava", raising=False)
    return Explainer(model, PROCESSOR).explain(small_llava.noise().resize(SIZE), "Describe it.", " red")


def saying(*grids: Grid) -> Any:
    return lambda prompt: ([Block(list(grids), 16)], [])


def warnings_of(found: Explanation) -> str:
    return " ".join(found.diagnostics["warnings"])


def asked(size: tuple[int, int], processor: Any = PROCESSOR) -> Explanation:
    return Explainer(MODEL, processor).explain(small_llava.noise().resize(size), "Describe it.", " red")


def test_a_known_family_is_checked_once_for_each_kind_of_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide, tall and square: a crop that is another shows in some of them alone."""
    shown: list[Any] = []
    measured = placing.measured
    monkeypatch.setattr(placing, "measured", lambda *args: shown.append(args) or measured(*args))
    found = asked(SIZE)
    assert found.grids[0].box == CROP and found.metadata["places"] == "declared" and warnings_of(found) == ""
    for count, size in enumerate([SIZE, (300, 90), (90, 300), (80, 240), (64, 64), (48, 48)]):
        assert warnings_of(asked(size)) == "" and len(shown) == 1 + count // 2
    kept._known.clear()  # as in another process
    asked(SIZE)
    assert len(shown) == 3


class Stretching:
    """An image processor of a later release: it still holds the settings of a crop, and stretches."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __call__(self, images: Any, **settings: Any) -> Any:
        listed = images if isinstance(images, list) else [images]
        return self._inner([image.resize((16, 16)) for image in listed], **settings)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_a_known_family_whose_processor_changed_is_measured() -> None:
    processor = small_llava.processor(TOKENIZER)
    processor.image_processor = Stretching(processor.image_processor)
    for size in (SIZE, (300, 90)):
        found = asked(size, processor)
        assert found.grids == (Grid(0, 0, 4, 4),) and found.metadata["places"] == "measured"
        assert "not where its inputs declare" in warnings_of(found)


def test_a_known_family_that_nothing_confirms_keeps_its_layout_with_a_warning() -> None:
    model = small_llava.model(TOKENIZER)
    model.model.multi_modal_projector = Shared(model.model.multi_modal_projector)
    found = Explainer(model, PROCESSOR).explain(small_llava.noise().resize(SIZE), "Describe it.", " red")
    assert found.grids[0].box == CROP and "did not confirm" in warnings_of(found)


def test_what_nobody_wrote_down_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    found = explain(monkeypatch, unknown)
    assert [(grid.rows, grid.columns, grid.start) for grid in found.grids] == [(4, 4, 0)]
    assert found.grids[0].box == pytest.approx(CROP, abs=10)  # half a cell
    assert warnings_of(found) == "" and found.metadata["places"] == "measured"


def test_grids_that_the_check_confirms_stay_and_lose_their_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    found = explain(monkeypatch, saying(Grid(0, 0, 4, 4, CROP)))
    assert found.grids == (Grid(0, 0, 4, 4, CROP),)
    assert warnings_of(found) == "" and found.metadata["places"] == "checked"


def test_of_a_picture_whose_tokens_see_a_pixel_each_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid that the inputs name is still confirmed."""
    monkeypatch.setattr("dexar_fast.vision.geometry.named_grids", unknown)
    monkeypatch.delitem(families.FAMILIES, "llava", raising=False)
    picture = small_llava.noise().resize((6, 6))
    found = Explainer(MODEL, PROCESSOR).explain(picture, "Describe it.", " red")
    assert found.grids == () and "about two pixels each" in warnings_of(found)
    monkeypatch.setattr("dexar_fast.vision.geometry.named_grids", saying(Grid(0, 0, 4, 4)))
    found = Explainer(MODEL, PROCESSOR).explain(picture, "Describe it.", " red")
    assert found.grids == (Grid(0, 0, 4, 4),) and found.metadata["places"] == "checked"


@pytest.mark.parametrize("wrong", [Grid(0, 0, 4, 4), Grid(0, 0, 2, 8, CROP), Grid(0, 0, 8, 2)])
def test_grids_that_it_refutes_give_way_with_a_warning(monkeypatch: pytest.MonkeyPatch, wrong: Grid) -> None:
    found = explain(monkeypatch, saying(wrong))
    assert [(grid.rows, grid.columns) for grid in found.grids] == [(4, 4)]
    assert found.grids[0].box == pytest.approx(CROP, abs=10)
    assert "not where its inputs declare" in warnings_of(found)


def test_what_is_found_is_kept_in_memory_and_on_the_disk(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    first = explain(monkeypatch, unknown).grids
    monkeypatch.setattr(placing, "measured", lambda *args: pytest.fail("measured again"))
    assert explain(monkeypatch, unknown).grids == first
    kept._known.clear()  # as in another process
    assert explain(monkeypatch, unknown).grids == first
    (file,) = (cache / "dexar_fast" / "places").iterdir()
    assert json.loads(file.read_text())["how"] == "measured"


def test_another_question_about_a_picture_of_that_size_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its words stand elsewhere, and there are more of them."""
    first = explain(monkeypatch, unknown)
    monkeypatch.setattr(placing, "measured", lambda *args: pytest.fail("measured again"))
    explainer, picture = Explainer(MODEL, PROCESSOR), small_llava.noise(48).resize(SIZE)
    for prompt in ("Which shape is left of the other one?", "Look. <image> What is it?"):
        found = explainer.explain(picture, prompt, " red")
        assert found.grids == first.grids and found.metadata["places"] == "measured"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"how": "measured", "grids": [{"image": 0}], "reason": null}'])
def test_a_file_that_is_broken_is_measured_again(monkeypatch: pytest.MonkeyPatch, cache: Path, text: str) -> None:
    first = explain(monkeypatch, unknown).grids
    (file,) = (cache / "dexar_fast" / "places").iterdir()
    file.write_text(text)
    kept._known.clear()
    assert explain(monkeypatch, unknown).grids == first
    assert json.loads(file.read_text())["how"] == "measured"


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert explain(monkeypatch, unknown).grids


def test_other_settings_sizes_and_layouts_are_other_keys() -> None:
    inputs = dict(PROCESSOR(images=[small_llava.noise()], text="<image> it", return_tensors="pt"))
    other = small_llava.processor(TOKENIZER)
    other.image_processor.do_center_crop = False
    placed = placing.nowhere(torch.arange(16), "so")
    fewer = placing.nowhere(torch.arange(15), "so")
    asked = [(PROCESSOR, placed, [(64, 64)]), (other, placed, [(64, 64)]), (PROCESSOR, fewer, [(64, 64)])]
    asked.append((PROCESSOR, placed, [(64, 65)]))
    keys = [kept.key_of(MODEL, processor, inputs, layout, sizes) for processor, layout, sizes in asked]
    assert len(set(keys)) == 4
    assert kept.key_of(MODEL, small_llava.processor(TOKENIZER), inputs, placed, [(64, 64)]) == keys[0]


def test_grids_come_back_from_the_disk_as_they_went(cache: Path) -> None:
    found = Found("measured", (Grid(1, 2, 3, 4, (0.5, 1.0, 2.0, 3.0), 5, 2, True), Grid(0, 0, 1, 1)), None)
    kept.keep("name", found)
    kept._known.clear()
    assert kept.recalled("name") == found and kept.recalled("another") is None


def names(cache: Path) -> set[str]:
    return {file.stem for file in (cache / "dexar_fast" / "places").iterdir()}


@pytest.mark.parametrize("bound", ["files", "bytes"])
def test_the_cache_holds_what_was_used_last(bound: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Found("measured", (Grid(0, 0, 3, 4),))
    kept.keep("first", found)
    (size,) = (file.stat().st_size for file in (cache / "dexar_fast" / "places").iterdir())
    monkeypatch.setattr(kept, f"MOST_{bound.upper()}", 3 if bound == "files" else 3 * size + 1)
    for age, name in enumerate(["second", "third"]):
        kept.keep(name, found)
        os.utime(cache / "dexar_fast" / "places" / f"{name}.json", (age + 1, age + 1))
    os.utime(cache / "dexar_fast" / "places" / "first.json", (0, 0))
    kept._known.clear()
    assert kept.recalled("first") == found  # the oldest is used once more
    kept.keep("fourth", found)
    assert names(cache) == {"first", "third", "fourth"}
    kept._known.clear()
    assert kept.recalled("second") is None


def test_what_is_held_in_memory_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_FILES", 3)
    for number in range(9):
        kept.keep(str(number), Found("none", reason="so"))
    assert [*kept._known] == ["6", "7", "8"]


def kept_by_another(cache: str, start: int) -> None:
    os.environ["XDG_CACHE_HOME"] = cache
    kept.MOST_FILES = 4
    for number in range(start, start + 40):
        kept.keep(str(number), Found("measured", (Grid(0, number, 1, 1),)))


def test_several_processes_keep_and_tidy_at_once(cache: Path) -> None:
    """What is left is whole, and not more than the bound and what was written in between."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for work in [pool.submit(kept_by_another, str(cache), start) for start in (0, 100)]:
            work.result()
    assert 1 <= len(names(cache)) <= 5
    for name in names(cache):
        assert kept.recalled(name) == Found("measured", (Grid(0, int(name), 1, 1),))


class Shared(torch.nn.Module):
    """A projector that gives each visual token the mean of all."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.inner(features.mean(1, keepdim=True).expand_as(features))


class Queries(Shared):
    """One whose tokens come from learned queries."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        weights = torch.softmax(torch.ones_like(features) @ features.mT, -1)
        return self.inner(weights @ features)


class Pooled(Shared):
    """One whose tokens attend to all patches, and to as many others."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        keys = torch.cat([features, features], 1)
        weights = torch.softmax(torch.ones_like(features) @ keys.mT, -1)
        return self.inner(weights @ keys)


@pytest.mark.parametrize(
    ("projector", "reason"),
    [(Shared, "answers to alone"), (Queries, "attention alone"), (Pooled, "answers to alone")],
)
def test_tokens_without_a_part_of_their_own_have_no_place(
    monkeypatch: pytest.MonkeyPatch, projector: type[Shared], reason: str
) -> None:
    model = small_llava.model(TOKENIZER)
    model.model.multi_modal_projector = projector(model.model.multi_modal_projector)
    for family in (unknown, saying(Grid(0, 0, 4, 4, CROP))):
        found = explain(monkeypatch, family, model)
        assert found.grids == () and reason in warnings_of(found) and found.metadata["places"] == "none"


def test_what_cannot_be_measured_stays_as_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any) -> Found:
        raise RuntimeError("the forward does not take such pictures")

    monkeypatch.setattr(placing, "measured", fails)
    assert explain(monkeypatch, saying(Grid(0, 0, 4, 4))).grids == (Grid(0, 0, 4, 4),)
    found = explain(monkeypatch, unknown)
    assert found.grids == () and "nobody wrote it down" in warnings_of(found)


def test_the_model_is_lent_while_it_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """And given back as it was, so that the same answer is explained alike."""
    before = Explainer(MODEL, PROCESSOR).explain(small_llava.noise().resize(SIZE), "Describe it.", " red")
    found = explain(monkeypatch, unknown)
    assert (found.token_maps == before.token_maps).all() and not MODEL.training


def test_two_pictures_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dexar_fast.vision.geometry.named_grids", unknown)
    monkeypatch.delitem(families.FAMILIES, "llava", raising=False)
    pictures = [small_llava.noise().resize(SIZE), Image.new("RGB", (60, 90), "red")]
    found = Explainer(MODEL, PROCESSOR).explain(pictures, "Describe them.", " red")
    assert [(grid.image, grid.start, grid.rows, grid.columns) for grid in found.grids] == [(0, 0, 4, 4), (1, 16, 4, 4)]

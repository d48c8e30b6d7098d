"""check(): its falls one picture at a time, its verdicts, its place in reports and files, what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scored_pictures
import torch
from PIL import Image, ImageFilter

from dexar_fast import Explainer, Explanation, InputError
from dexar_fast.data.shapes import draw_scene
from dexar_fast.evaluation import hiding
from dexar_fast.metrics import chance


def copied(e: Explanation, **changed: Any) -> Explanation:
    return replace(e, diagnostics=dict(e.diagnostics), metadata=dict(e.metadata), **changed)


def top(values: np.ndarray, share: float) -> np.ndarray:
    """Where the greatest of them lie; they are all different."""
    return values >= np.sort(values.ravel())[-round(share * values.size)]


def test_the_falls_one_picture_at_a_time(embedded: Explainer, answer: Explanation) -> None:
    picture = np.asarray(answer.images[0])
    blurred = np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(38.4)))

    def fall(values: np.ndarray, share: float) -> np.ndarray:
        shown = np.where(top(values, share)[..., None], blurred, picture)
        return whole - scored_pictures.scored(embedded, answer, shown)

    whole = scored_pictures.scored(embedded, answer, picture)
    found = embedded.check(copied(answer), seed=7)
    own = answer.heatmap(resolution="image")
    expected = np.array([fall(own, share) for share in (0.05, 0.1, 0.2)])
    np.testing.assert_allclose(found.token_falls, expected, atol=0.01)
    np.testing.assert_allclose(found.falls, expected.sum(1), atol=0.02)
    assert max(np.abs(found.falls)) > 1
    rng = np.random.default_rng(7)
    blind = [fall(chance.random_smooth(384, 384, rng), 0.1).sum() for _ in range(4)]
    np.testing.assert_allclose(found.random, blind, atol=0.02)
    assert len(found.centre) == 3 and found.fill == "blur" and found.blank is False


@pytest.mark.parametrize("draws, pictures", [(1, 8), (4, 11), (9, 16)])
def test_how_many_pictures_it_takes(
    embedded: Explainer, answer: Explanation, monkeypatch: pytest.MonkeyPatch, draws: int, pictures: int
) -> None:
    run, counts = hiding.MaskedForwards.__call__, []
    monkeypatch.setattr(
        hiding.MaskedForwards, "__call__", lambda self, count, make: counts.append(count) or run(self, count, make)
    )
    embedded.check(copied(answer), draws=draws)
    assert counts == [pictures]


def test_a_map_of_the_object_in_question_is_above_chance(embedded: Explainer) -> None:
    """A purple cross at the left, by its mask: hiding it costs, and blind maps miss it."""
    scene = draw_scene(9)
    e = embedded.explain(scene.image, "What color is the cross?", "The cross is purple.")
    cells = scene.masks[0].reshape(12, 32, 12, 32).mean((1, 3)).ravel()
    found = embedded.check(replace(e, sequence_map=torch.from_numpy(cells).float()), fill="mean")
    assert found.verdict == "above chance" and found.by_luck == pytest.approx(0.2)
    assert found.falls[1] > 3 > 1 > max(found.random)


def test_blank_and_blind_maps(embedded: Explainer, answer: Explanation) -> None:
    blank = copied(answer, sequence_map=torch.zeros_like(answer.sequence_map))
    assert embedded.check(blank).verdict == "blank"
    corner = torch.zeros_like(answer.sequence_map).reshape(12, 12)
    corner[:4, :4] = torch.arange(16).reshape(4, 4) + 1.0
    assert embedded.check(copied(answer, sequence_map=corner.ravel())).verdict == "at chance"


def test_it_stands_in_diagnostics_report_and_file(embedded: Explainer, answer: Explanation, tmp_path: Path) -> None:
    e = copied(answer)
    before = tmp_path / "before.html"
    e.to_html(before)
    found = embedded.check(e)
    e.to_html(tmp_path / "after.html")
    assert found.verdict.capitalize() + ": hiding the 10 %" in (tmp_path / "after.html").read_text()
    assert "hiding the 10 %" not in before.read_text()
    e.save(tmp_path / "e.safetensors")
    loaded = Explanation.load(tmp_path / "e.safetensors")
    assert loaded.diagnostics["evidence"] == found.to_dict()
    assert embedded.check(loaded).falls == pytest.approx(found.falls, abs=1e-3)


@pytest.mark.parametrize("method", ["eagle:regions=9", "tam", "centre"])
def test_any_method(embedded: Explainer, answer: Explanation, method: str) -> None:
    other = embedded.with_method(method)
    e = other.explain(answer.images[0], answer.metadata["question"], answer.text)
    found = other.check(e)
    assert np.isfinite(found.falls).all() and np.shape(found.token_falls) == (3, len(e))
    if method == "centre":
        assert found.falls == pytest.approx(found.centre, abs=0.5)


def test_inputs_that_a_caller_made(embedded: Explainer, answer: Explanation) -> None:
    inputs = embedded.processor(images=answer.images[0], text=answer.metadata["prompt"], return_tensors="pt")
    e = embedded.explain_inputs(inputs, answer.token_ids, images=answer.images[0])
    with pytest.raises(InputError, match="pass inputs="):
        embedded.check(e)
    assert embedded.check(e, inputs=inputs).falls == pytest.approx(embedded.check(copied(answer)).falls, abs=1e-3)


def test_what_is_refused(embedded: Explainer, answer: Explanation) -> None:
    with pytest.raises(InputError, match="kept none"):
        embedded.check(copied(answer, images=()))
    with pytest.raises(InputError, match="an Explanation is due, not a str"):
        embedded.check("an explanation")
    longer = copied(answer)
    longer.metadata["prompt"] = longer.metadata["prompt"].replace("circle", "red circle")
    with pytest.raises(InputError, match="tokens with this processor"):
        embedded.check(longer)
    with pytest.raises(InputError, match="draws"):
        embedded.check(answer, draws=0)
    with pytest.raises(InputError, match="fill"):
        embedded.check(answer, fill="white")
    with pytest.raises(InputError, match="geometry"):
        embedded.check(copied(answer, grids=()))

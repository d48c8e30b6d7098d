"""Jobs over answers that a data set stores as ids."""

from pathlib import Path
from typing import Any

import pytest
from small_data import lines
from stored_answers import stored_list

from dexar_fast import Explainer
from dexar_fast.data import read
from dexar_fast.jobs.asked import Asked


@pytest.fixture
def listed(explainer: Explainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The explanation of an answer that is stored; nothing may be generated from here on."""
    found, _ = stored_list(explainer, tmp_path, target=1)
    monkeypatch.setattr(explainer.model, "generate", None)
    return found


def test_the_ids_of_a_list_are_explained_behind_its_own_prompt(listed: Any, finish: Any, tmp_path: Path) -> None:
    rows = finish(read("eagle", tmp_path / "list.json", images=tmp_path), tmp_path / "out", Asked())
    assert [row["token_id"] for row in rows] == listed.token_ids.tolist()
    for row, expected in zip(rows, listed.token_maps, strict=True):
        assert row["map"] == pytest.approx(expected.tolist(), rel=1e-3, abs=1e-4 * float(listed.token_maps.max()))


def test_ids_that_no_text_gives_are_explained_as_they_are(listed: Any, finish: Any, tmp_path: Path) -> None:
    """The tokens of the answer in another order, and no text beside them."""
    ids = listed.token_ids.tolist()[::-1]
    path = lines(tmp_path / "d.jsonl", {"image": "scene.png", "question": "What?", "answer_ids": ids})
    for asked in (Asked(), Asked("Why?"), Asked(batch_size=1)):
        rows = finish(read("jsonl", path), tmp_path / repr(asked), asked)
        assert [row["token_id"] for row in rows] == ids


def test_a_list_of_another_model_costs_its_items(listed: Any, finish: Any, tmp_path: Path) -> None:
    text = (tmp_path / "list.json").read_text()
    image = str(finish.explainer.model.config.image_token_id)
    (tmp_path / "other.json").write_text(text.replace(f" {image},", " 2,"))
    ((_, error),) = finish.run(read("eagle", tmp_path / "other.json", images=tmp_path), tmp_path / "out", Asked())
    assert "holds no picture of this model" in error


def test_answers_are_written_on_request(explainer: Explainer, finish: Any, tmp_path: Path) -> None:
    stored_list(explainer, tmp_path, target=1)
    asked = Asked(written=True, arguments={"max_new_tokens": 3})
    rows = finish(read("eagle", tmp_path / "list.json", images=tmp_path), tmp_path / "out", asked)
    written = explainer.explain(tmp_path / "scene.png", "What?", max_new_tokens=3)
    assert [row["token_id"] for row in rows] == written.token_ids.tolist()

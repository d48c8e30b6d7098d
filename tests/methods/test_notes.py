"""What each method says of its numbers, and what the page shows of that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch

from dexar_fast import Explainer
from dexar_fast.explanation import Explanation
from dexar_fast.methods import registry
from dexar_fast.methods.base import WHOLE_ANSWER, Asked, Maps
from dexar_fast.report import plain_words
from dexar_fast.report.page.document import render

IMAGE, PROMPT, ANSWER = "dexar_fast/assets/sample.png", "Describe the image.", " A red circle."
FEW = {
    "eagle": "regions=4",
    "captum": "samples=1",
    "igos++": "side=4,steps=1,iterations=2",
    "integrated-gradients": "steps=2",
    "rise": "samples=8",
    "shapley": "samples=2",
    "smoothgrad": "samples=2",
}
OURS = [f"{name}:{FEW[name]}" if name in FEW else name for name in registry.names() if name != "dex-ar"]
OF_DEX_AR = "G, for a token, a layer, a head and a place"


@dataclass(frozen=True)
class Silent:
    """A method that says nothing of its numbers."""

    name: ClassVar[str] = "silent"

    def maps(self, asked: Asked) -> Maps:
        maps = torch.rand(len(asked.targets), len(asked.visual))
        return Maps(maps, maps.sum(0), asked.grids)


@pytest.fixture(scope="module")
def embedded() -> Explainer:
    return Explainer.from_pretrained()


def asked_by(embedded: Explainer, method: Any) -> Explanation:
    return embedded.with_method(method).explain(IMAGE, PROMPT, ANSWER)


def page(explanation: Explanation) -> str:
    return render([explanation], ["it"], "token").decode()


@pytest.mark.parametrize("method", [*OURS, "attention-gradient:of=final"])
def test_a_method_says_what_its_numbers_are(embedded: Explainer, method: str) -> None:
    found = asked_by(embedded, method)
    notes = found.diagnostics["notes"]
    assert plain_words.numbers(found) == notes and 2 <= len(notes) <= 4
    assert notes[0].startswith("Map value of a ") and all(note.endswith(".") for note in notes)
    assert len({*notes}) == len(notes) and "{" not in "".join(notes)
    shown = page(found)
    assert "What the numbers are" in shown and OF_DEX_AR not in shown


@pytest.mark.parametrize("method", OURS)
def test_the_whole_answers_map_is_the_sum_where_a_method_says_so(embedded: Explainer, method: str) -> None:
    found = asked_by(embedded, method)
    summed = torch.allclose(found.sequence_map, found.token_maps.sum(0), rtol=1e-5)
    assert (WHOLE_ANSWER in found.diagnostics["notes"]) == summed


def test_a_method_without_notes_shows_none_and_not_those_of_dex_ar(embedded: Explainer) -> None:
    shown = page(asked_by(embedded, Silent()))
    assert "What the numbers are" not in shown and OF_DEX_AR not in shown
    assert OF_DEX_AR in page(asked_by(embedded, "dex-ar"))


def test_a_file_without_notes_is_dex_ars_only_where_no_other_method_is_named(embedded: Explainer) -> None:
    found = asked_by(embedded, Silent())
    del found.diagnostics["notes"]
    assert plain_words.numbers(found) == []
    del found.metadata["settings"]
    assert plain_words.numbers(found)[0].startswith(OF_DEX_AR)


def test_a_method_that_weighs_no_tokens_says_so(embedded: Explainer) -> None:
    unweighted, weighted = asked_by(embedded, Silent()), asked_by(embedded, "eagle:regions=4")
    assert "This method weighs no tokens" in str(plain_words.diagnose(unweighted)[0])
    assert not plain_words.diagnose(weighted)

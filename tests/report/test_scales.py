"""The scale that the answers of a page share."""

import json
import re
from typing import Any

import pytest
from report_examples import WORDS, explanation

from dexar_fast.report.page import document
from dexar_fast.report.scales import common_top


def of(settings: dict[str, Any], model: str = "m", largest: float = 2.5) -> Any:
    weights = [largest * (n % 3) / 2 for n in range(len(WORDS))]
    return explanation(weights=weights, metadata={"model": model, "settings": settings})


def top_of_page(*explanations: Any) -> Any:
    html = document.render(explanations, [str(n) for n in range(len(explanations))], "token").decode()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    assert found
    return json.loads(found[1])["top"]


def test_answers_by_one_method_share_the_largest_weight() -> None:
    pair = of({"method": "dex-ar"}, largest=0.01), of({"method": "dex-ar"})
    assert common_top(pair) == pytest.approx(2.5) and top_of_page(*pair) == pytest.approx(2.5)


def test_other_methods_or_models_and_a_single_answer_share_none() -> None:
    first = of({"method": "dex-ar"})
    assert top_of_page(first) is None
    assert top_of_page(first, of({"method": "eagle"})) is None
    assert top_of_page(first, of({"method": "dex-ar"}, "other")) is None

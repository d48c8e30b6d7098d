"""The states of an answer that grows: what they say equals what the report of the finished answer says."""

import base64
import json
import re
import zlib
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from serving import SAMPLE

from dexar_fast import Explainer
from dexar_fast.report import words
from dexar_fast.report.page import data
from dexar_fast.serve.work.growing import Growing, page


def unpacked(text: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)


def rows(block: dict[str, Any], name: str) -> np.ndarray:
    return unpacked(block[name]).reshape(len(block["pieces"]), -1)


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    return Explainer.from_pretrained()


@pytest.fixture(scope="module", params=[1, 3])
def grown(request: Any, explainer: Explainer) -> tuple[list[dict[str, Any]], Any]:
    growing, states = Growing("m"), []
    stream = explainer.stream(str(SAMPLE), "Describe the image.", chunk_size=request.param)
    for piece in stream:
        states.append(growing.take(piece, stream.explanation()))
    whole = stream.explanation()
    return [*states, growing.end(whole, "word")], whole


def test_blocks_and_whole_say_what_the_report_says(grown: tuple[list[dict[str, Any]], Any]) -> None:
    states, whole = grown
    last, truth = states[-2], data.encode(whole, words.pieces(whole, "token"), [], None)
    for name in ("maps", "heads", "curves"):
        parts = [rows(block, name)[:-1] for block in last["blocks"]] + [rows(last["whole"], name)]
        difference = np.vstack(parts).astype(int) - rows(truth, name)
        assert np.abs(difference).max() <= 1, name  # a rounding to steps
    pieces = [row for block in last["blocks"] for row in block["pieces"][:-1]]
    assert [row["tokens"] for row in pieces] == [row["tokens"] for row in truth["pieces"][:-1]]
    weights = [row["weight"] for row in truth["pieces"][:-1]]
    assert [row["weight"] for row in pieces] == pytest.approx(weights, rel=1e-3)
    assert last["whole"]["pieces"][0]["high"] == pytest.approx(truth["pieces"][-1]["high"], rel=1e-3)


def test_the_chips_are_those_of_the_report(grown: tuple[list[dict[str, Any]], Any]) -> None:
    states, whole = grown
    report = page([whole], ["m"], "token")
    assert all(chip.strip() in report for chip in states[-2]["chips"])
    assert len(states[-2]["chips"]) == len(whole)
    assert [len(state["chips"]) for state in states[:-1]] == sorted(len(state["chips"]) for state in states[:-1])


def test_what_was_sent_stays_as_it_was(grown: tuple[list[dict[str, Any]], Any]) -> None:
    """Gradio compares each state with the last: one that changes afterwards would hide what is new."""
    states = grown[0][:-1]
    for earlier, later in pairwise(states):
        assert later["page"] is earlier["page"]
        assert later["blocks"][: len(earlier["blocks"])] == earlier["blocks"]
        assert len(later["blocks"]) == len(earlier["blocks"]) + 1


def test_states_are_json_and_the_last_holds_the_report(grown: tuple[list[dict[str, Any]], Any]) -> None:
    states, whole = grown
    for state in states:
        json.dumps(state, allow_nan=False)
    assert set(states[-1]) == {"run", "page", "final"} and len({state["run"] for state in states}) == 1
    assert states[-1]["final"] == page([whole], ["m"], "word")
    assert states[-1]["page"] == states[0]["page"]


def test_a_whole_answer_at_once_is_a_page(explainer: Explainer) -> None:
    found = explainer.with_method("tam").explain(str(SAMPLE), "Describe the image.")
    state = Growing("m").end(found, "token")
    assert set(state) == {"page"}
    assert re.search(r"<html", state["page"])

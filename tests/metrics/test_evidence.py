"""The verdict on a map: by hand, how often luck gives it, and what no evidence is."""

import json

import numpy as np
import pytest

from dexar_fast.errors import InputError
from dexar_fast.metrics.hiding.evidence import Evidence


def evidence(**changed: object) -> Evidence:
    given = {
        "fill": "blur",
        "shares": [0.05, 0.1, 0.2],
        "falls": [0.2, 0.9, 1.5],
        "centre": [0.1, 0.3, 0.9],
        "random": [0.1, 0.4, 0.2, 0.0],
        "token_falls": [[0.1, 0.1], [0.5, 0.4], [1.0, 0.5]],
        "blank": False,
    }
    return Evidence(**(given | changed))


def test_the_docstrings_numbers():
    found = evidence()
    assert found.verdict == "above chance"
    assert found.by_luck == pytest.approx(1 / 5)
    assert "10 % that the map ranks highest (fill: blur) costs the answer 0.90 nats" in found.sentence
    assert "centre 0.30, at random places 0.00 to 0.40 (4 draws)" in found.sentence and "20 % of the" in found.sentence


def test_no_better_than_one_blind_map_is_chance():
    assert evidence(random=[0.1, 0.95, 0.2, 0.0]).verdict == "at chance"
    assert evidence(centre=[0.1, 0.9, 0.9]).verdict == "at chance"
    assert evidence(random=[0.1, 0.95, 0.9, 0.0]).by_luck == pytest.approx(3 / 5)


def test_what_makes_the_answer_likelier_or_hardly_less_likely_is_chance():
    nothing = {"centre": [-1.0] * 3, "random": [-1.0, -2.0]}
    assert evidence(falls=[0.0, -0.5, 0.0], **nothing).verdict == "at chance"
    assert evidence(falls=[0.0, 0.009, 0.0], **nothing).verdict == "at chance"
    assert evidence(falls=[0.0, 0.011, 0.0], **nothing).verdict == "above chance"
    assert "costs the answer -0.50 nats" in evidence(falls=[0.0, -0.5, 0.0], **nothing).sentence
    assert "costs the answer 0.00 nats" in evidence(falls=[0.0, -0.001, 0.0], **nothing).sentence


def test_a_blank_map_has_no_top():
    found = evidence(blank=True)
    assert found.verdict == "blank" and found.sentence.startswith("Blank")


def test_a_blind_map_is_above_n_blind_ones_one_time_in_n_plus_1():
    rng = np.random.default_rng(0)
    low = [-1.0, -1.0, -1.0]
    drawn = [
        evidence(falls=[0.0, falls[0], 0.0], centre=low, random=falls[1:])
        for falls in (1 + rng.random((4000, 5))).tolist()
    ]
    assert np.mean([each.verdict == "above chance" for each in drawn]) == pytest.approx(1 / 5, abs=0.02)
    assert np.mean([each.by_luck <= 0.4 for each in drawn]) == pytest.approx(2 / 5, abs=0.03)


def test_it_is_plain_json():
    found = evidence()
    read = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert read["verdict"] == "above chance" and read["token_falls"][1] == [0.5, 0.4]
    assert read["sentence"] == found.sentence


@pytest.mark.parametrize(
    "changed",
    [
        {"falls": [0.1, 0.2]},
        {"centre": [0.1, 0.2, float("nan")]},
        {"random": []},
        {"token_falls": [[0.1]]},
        {"shares": [0.05]},
    ],
)
def test_what_is_no_evidence(changed):
    with pytest.raises(InputError):
        evidence(**changed)

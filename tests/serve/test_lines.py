"""The line of news: what of a hidden part and of a check it says."""

from typing import Any

import pytest

from dexar_fast.metrics.hiding.evidence import Evidence
from dexar_fast.serve.page import lines


def found(*changes: tuple[float, float], painted: tuple[bool, ...] = (True,)) -> dict[str, Any]:
    texts = "ab "[: len(changes)]
    tokens = [{"text": text, "before": b, "after": a} for text, (b, a) in zip(texts, changes, strict=True)]
    return {"tokens": tokens, "painted": list(painted)}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ([(0.9, 0.9), (0.8, 0.1), (0.5, 0.9)], "Fell most: “b” (token 2), from 0.80 to 0.10"),
        ([(0.9, 0.9), (0.8, 0.7), (0.1, 0.9)], "Rose most: “␣” (token 3), from 0.10 to 0.90"),
        ([(0.9, 0.904), (0.8, 0.8), (0.1, 0.096)], "Nothing changed: each token is as likely as before."),
    ],
)
def test_the_token_that_changed_most_is_named(changes: list[tuple[float, float]], says: str) -> None:
    assert lines.hidden(found(*changes), ["m"], hottest=False) == {"kind": "news", "text": says}


def test_where_the_hottest_part_lies_is_said() -> None:
    changes = [(0.9, 0.1)]
    said = lines.hidden(found(*changes), ["m"], hottest=True)["text"]
    assert said.startswith("The hottest tenth of the whole answer's map is painted. Fell most")
    said = lines.hidden(found(*changes, painted=(True, False, True)), ["x", "y"], hottest=True)["text"]
    assert said.startswith("Of “x”: The hottest tenth of the whole answer's map lies in pictures 1, 3. Fell most")
    said = lines.hidden(found(*changes, painted=(False, True)), ["m"], hottest=True)["text"]
    assert said.startswith("The hottest tenth of the whole answer's map lies in picture 2. Fell most")


@pytest.mark.parametrize(
    ("own", "centre", "random", "says"),
    [
        (0.9, 0.3, [0.1, 0.2, 0.3, 0.4], "The answer suffers most where the map is hottest: the map holds."),
        (0.9, 0.3, [0.1, 1.2, 0.9, 0.4], "Hiding other places costs as much in 2 of 4 draws: no evidence for the map."),
        (0.9, 1.0, [0.1, 0.2, 0.3, 0.4], "Hiding the centre costs the answer as much: no evidence for the map."),
        (0.01, 0, [0.0, 0.0, 0.0, 0.0], "Hiding the top of the map costs the answer nothing: no evidence for the map."),
    ],
)
def test_a_check_is_told_in_plain_words(own: float, centre: float, random: list[float], says: str) -> None:
    falls = [[value] for value in (own / 2, own, own)]
    evidence = Evidence("blur", [0.05, 0.1, 0.2], [own / 2, own, own], [0, centre, centre], random, falls, False)
    assert lines.checked(evidence, ["m"])["text"] == f"{says} {evidence.sentence}"
    assert lines.checked(evidence, ["m", "n"])["text"].startswith("Of “m”: ")

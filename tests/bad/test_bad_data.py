"""The table of bad input: data sets, and what is asked of an evaluation over them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import bad_input
import pytest
from bad_input import Case, Row
from small_data import document, lines, picture

from dexar_fast import data
from dexar_fast.jobs.eval.plan import Evaluation

SHAPES = "shapes:count=1,asked=one"


def spelled(text: str) -> Callable[[Path], list[Case]]:
    """A data set by what stands behind --data."""
    return lambda folder: [_read(text.format(folder=folder))]


def _read(text: str) -> Case:
    return Case(partial(data.of, text), program=["--data", text], command="eval")  # type: ignore[arg-type]


def asking(*program: str, **options: Any) -> Callable[[Path], list[Case]]:
    """An evaluation of Shapes with an option that is none."""
    ask = partial(Evaluation, data.of(SHAPES), SHAPES, **options)
    return lambda folder: [Case(ask, program=["--data", SHAPES, *program], command="eval")]  # type: ignore[arg-type]


def items(write: Callable[[Path], str]) -> Callable[[Path], list[Case]]:
    """The first item of a data set; the program goes on with the others, and names it."""
    return lambda folder: [Case(lambda: _raised(data.of(write(folder))[0]))]


def _raised(item: Any) -> Any:
    checked = item.checked()
    if checked.error is not None:
        raise checked.error
    return checked


def _row(folder: Path, **row: Any) -> str:
    picture(folder / "a.png")
    return str(lines(folder / "list.jsonl", {"id": "a", "image": "a.png", "question": "What?", **row}))


def _of_another_size(folder: Path) -> str:
    picture(folder / "m.png", 5, 5)
    return _row(folder, masks=["m.png"])


def _no_json(folder: Path) -> str:
    return str(lines(folder / "list.jsonl", '{"image": '))


def _half_of_vqa(folder: Path) -> list[Case]:
    document(folder / "v2_OpenEndedQuestions_mscoco_val2014_questions.json", {"questions": []})
    return [_read(f"vqav2:{folder}")]


def _other_settings(folder: Path) -> list[Case]:
    """The folder of an evaluation with another seed."""
    out = folder / "begun"
    options = ["--data", SHAPES, "--methods", "attention", "--metrics", "blank"]
    assert bad_input.program(*options, "--out", str(out), command="eval")[0] == 0
    return [
        Case(
            lambda: _raised_by_running(out),  # type: ignore[arg-type, return-value]
            program=[*options, "--seed", "1"],
            command="eval",
            out=out,
        )
    ]


def _raised_by_running(out: Path) -> None:
    from dexar_fast.jobs.eval.running import run

    next(run(Evaluation(data.of(SHAPES), SHAPES, ("attention",), ("blank",), seed=1), out, lambda model: None))  # type: ignore[arg-type, return-value]


ROWS = {
    "data set of an unknown name": Row("InputError", ("'vqa' is none of", "did you mean 'vqav2'"), spelled("vqa")),
    "data set that lacks its folder": Row("InputError", ("voc: root must be given",), spelled("voc")),
    "option that the data set does not have": Row(
        "InputError", ("'split' is no option of this data set", "count"), spelled("shapes:split=val")
    ),
    "data set without a part of its files": Row("InputError", ("missing", "annotations.json", "val2014"), _half_of_vqa),
    "file of data that does not exist": Row("InputError", ("does not exist",), spelled("{folder}/list.jsonl")),
    "line of data that is no JSON": Row("InputError", ("line 1", "is not JSON"), items(_no_json)),
    "item whose picture is missing": Row(
        "ImageError", ("b.png is missing",), items(lambda folder: _row(folder, image="b.png"))
    ),
    "item whose mask has another size than its picture": Row(
        "InputError", ("is 5 x 5 pixels, the picture 13 x 9",), items(_of_another_size)
    ),
    "item whose answer is no text": Row(
        "InputError", ("answer is a int where a text is due",), items(lambda folder: _row(folder, answer=5))
    ),
    "metric of an unknown name": Row(
        "InputError", ("'egp' is none of", "did you mean 'epg'"), asking("--metrics", "egp", metrics=("egp",))
    ),
    "fill for a metric that hides nothing": Row(
        "InputError", ("hides nothing",), asking("--metrics", "iou:fill=blur", metrics=("iou:fill=blur",))
    ),
    "chance map among the methods": Row(
        "InputError",
        ("'uniform' is a chance map", "leave it out"),
        asking("--methods", "uniform", methods=("uniform",)),
    ),
    "folder of an evaluation with other settings": Row("InputError", ("begun with", "seed 0, not 1"), _other_settings),
}


@pytest.mark.parametrize("row", ROWS)
def test_data(row: str, tmp_path: Path, model_folder: Path) -> None:
    bad_input.check(ROWS[row], tmp_path, model_folder)

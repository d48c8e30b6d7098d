"""What a job does in a folder that another has begun: refused as a whole, or failures tried again."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from small_data import document, lines, picture

from dexar_fast.data import DataSet, read
from dexar_fast.errors import InputError
from dexar_fast.jobs.asked import Asked
from dexar_fast.jobs.finished import ledger
from dexar_fast.jobs.job import Job
from dexar_fast.jobs.share import Share


def names(told: list[tuple[str, Any]]) -> list[str]:
    return [name for name, _ in told]


def test_other_pictures_of_the_same_names_are_refused(photos: DataSet, finish: Any, tmp_path: Path) -> None:
    finish(photos, tmp_path / "out")
    (tmp_path / "photos").rename(tmp_path / "earlier")
    with pytest.raises(InputError, match=r'data "folder:.*photos", not "folder:.*earlier"'):
        finish.run(read("folder", tmp_path / "earlier"), tmp_path / "out")


def test_what_is_refused_leaves_no_trace(photos: DataSet, finish: Any, tmp_path: Path) -> None:
    """Neither a ledger of its settings, which would keep the right ones out for good, nor a lock."""
    before = finish(photos, tmp_path / "out")
    for share in (Share(0, 2), Share(0, 1)):
        with pytest.raises(InputError, match="was begun with prompt"):
            finish.run(photos, tmp_path / "out", Asked("Why?"), share=share)
    assert [path.name for path in (tmp_path / "out" / "_finished").iterdir()] == ["0-of-1.jsonl"]
    assert finish.run(photos, tmp_path / "out") == [] and finish.merged(tmp_path / "out")[1] == before


def test_settings_that_ended_in_an_error_can_be_put_right(photos: DataSet, finish: Any, tmp_path: Path) -> None:
    """The model was not there: the same folder takes the right one, with any number of workers."""
    for share in (Share(), Share(1, 2)):
        Job(photos, tmp_path / "out", Asked("What?"), {"model": "mispelt"}, share=share).close()
    assert len(finish.run(photos, tmp_path / "out", by={"model": "m"})) == 4
    assert finish.merged(tmp_path / "out")[0].finished == 4
    with pytest.raises(InputError, match='model "m", not "mispelt"'):
        finish.run(photos, tmp_path / "out", by={"model": "mispelt"}, share=Share(1, 2))


@pytest.mark.parametrize("share", [Share(), Share(0, 2)])
def test_what_failed_is_tried_again(photos: DataSet, finish: Any, tmp_path: Path, share: Share) -> None:
    """By the worker that failed, or by another."""
    whole = finish(photos, tmp_path / "out")
    assert finish.run(photos, tmp_path / "out", share=share) == []
    assert finish.run(photos, tmp_path / "out", share=share, retry=True)[0][1] is not None
    picture(tmp_path / "photos" / "broken.png")
    assert finish.run(photos, tmp_path / "out", share=share, retry=True) == [("broken.png", None)]
    merged, rows = finish.merged(tmp_path / "out")
    assert not merged.failed and merged.finished == 4
    assert [row for row in rows if row["item"] != "broken.png"] == [row for row in whole if row["error"] is None]
    assert finish.run(photos, tmp_path / "out", share=share, retry=True) == []


def test_a_later_failure_of_another_worker_hides_nothing(photos: DataSet, finish: Any, tmp_path: Path) -> None:
    whole = finish(photos, tmp_path / "out")
    folder = tmp_path / "out" / "_finished"
    asked, records = ledger.read(folder / "0-of-1.jsonl")
    with ledger.Ledger(folder / "1-of-2.jsonl", asked) as other:
        other.add({"z.png": records["z.png"] | {"error": "no memory"}})
    assert finish.merged(tmp_path / "out")[1] == whole


def test_an_explanation_that_is_gone_is_made_again(photos: DataSet, finish: Any, tmp_path: Path) -> None:
    whole = finish(photos, tmp_path / "out")
    (tmp_path / "out" / "_explanations" / "00000003.safetensors").unlink()
    told = finish.run(photos, tmp_path / "out", retry=True)
    assert names(told) == ["broken.png", photos.ids[3]] and finish.merged(tmp_path / "out")[1] == whole


def test_names_that_look_like_those_of_repeated_ones(finish: Any, tmp_path: Path) -> None:
    for name, colour in (("a", "red"), ("b", "blue"), ("c", "green")):
        Image.new("RGB", (40, 40), colour).save(tmp_path / f"{name}.png")
    rows = [{"image": f"{name}.png", "id": shown} for name, shown in (("a", "x"), ("b", "x#2"), ("c", "x"))]
    told = finish.run(read("jsonl", lines(tmp_path / "d.jsonl", *rows)), tmp_path / "out")
    assert names(told) == ["x", "x#2", "x#2#2"]


def test_a_job_that_is_refused_frees_its_share(photos: DataSet, finish: Any, tmp_path: Path) -> None:
    finish.run(photos, tmp_path / "out")
    with pytest.raises(InputError):
        Job(photos, tmp_path / "out", Asked("Why?"), {})
    Job(photos, tmp_path / "out", Asked("What?"), {}).close()


def rows(path: Path, *questions: str) -> DataSet:
    """Rows without ids: theirs are #0, #1, ..."""
    picture(path / "a.png")
    return read("jsonl", lines(path / "a.jsonl", *({"image": "a.png", "question": one} for one in questions)))


def test_other_rows_in_the_same_file_are_refused(finish: Any, tmp_path: Path) -> None:
    finish(rows(tmp_path, "What?", "Which?"), tmp_path / "out", Asked())
    again = rows(tmp_path, "What?", "Which?")
    os.utime(tmp_path / "a.jsonl", (1, 1))
    assert finish.run(again, tmp_path / "out", Asked()) == []
    for questions in (("What?", "Why?"), ("Which?", "What?")):
        with pytest.raises(InputError, match='was begun with data_content "'):
            finish.run(rows(tmp_path, *questions), tmp_path / "out", Asked())


def test_rows_behind_those_that_are_asked_may_change(finish: Any, tmp_path: Path) -> None:
    finish(rows(tmp_path, "What?", "Which?"), tmp_path / "out", Asked(), count=1)
    assert finish.run(rows(tmp_path, "What?", "Why?", "How?"), tmp_path / "out", Asked(), count=1) == []


@pytest.mark.parametrize("said", ["A dog", "A cat"])
def test_other_answers_in_a_second_file_are_refused(finish: Any, tmp_path: Path, said: str) -> None:
    finish(asked_of_coco(tmp_path, "A cat"), tmp_path / "out", Asked())
    again = asked_of_coco(tmp_path, said)
    if said == "A cat":
        assert finish.run(again, tmp_path / "out", Asked()) == []
        return
    with pytest.raises(InputError, match='was begun with data_content "'):
        finish.run(again, tmp_path / "out", Asked())


def asked_of_coco(root: Path, said: str) -> DataSet:
    """VQAv2, with one question."""
    picture(root / "val2014" / "COCO_val2014_000000000007.jpg", 40, 40)
    asked = [{"question_id": 1, "image_id": 7, "question": "What?"}]
    document(root / "v2_OpenEndedQuestions_mscoco_val2014_questions.json", {"questions": asked})
    given = [{"question_id": 1, "multiple_choice_answer": said, "answers": []}]
    document(root / "v2_mscoco_val2014_annotations.json", {"annotations": given})
    return read("vqav2", root)


def test_a_folder_of_a_time_when_contents_were_not_kept_goes_on(finish: Any, tmp_path: Path) -> None:
    data = rows(tmp_path, "What?", "Which?")
    before = finish(data, tmp_path / "out", Asked())
    path = tmp_path / "out" / "_finished" / "0-of-1.jsonl"
    head, first, _ = path.read_text().splitlines(keepends=True)
    asked = json.loads(head)
    del asked["asked"]["data_content"]
    path.write_text(json.dumps(asked) + "\n" + first)
    assert names(finish.run(data, tmp_path / "out", Asked())) == ["#1"] and finish.merged(tmp_path / "out")[1] == before
    assert finish.run(data, tmp_path / "out", Asked(), share=Share(1, 2)) == []  # whose ledger holds the content


def test_a_picture_that_comes_later_is_no_other_data(finish: Any, tmp_path: Path) -> None:
    data = rows(tmp_path, "What?")
    (tmp_path / "a.png").unlink()
    assert finish.run(data, tmp_path / "out", Asked())[0][1]
    assert finish.run(rows(tmp_path, "What?"), tmp_path / "out", Asked(), retry=True) == [("#0", None)]

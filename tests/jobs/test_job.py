"""A job: what it asks, what it writes, what it goes on from, and what it refuses."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small_data import lines, picture

from dexar_fast import Explanation, files
from dexar_fast.data import DataSet, Item, read
from dexar_fast.errors import FileError, InputError
from dexar_fast.jobs.asked import Asked
from dexar_fast.jobs.finished.merging import merge
from dexar_fast.jobs.job import Job
from dexar_fast.jobs.share import Share

SHAPES = read("shapes", count=3)


def test_a_folder_with_a_broken_picture(photos: DataSet, finish: Any, tmp_path: Path) -> None:
    told = finish.run(photos, tmp_path / "out")
    merged, rows = finish.merged(tmp_path / "out")
    assert [name for name, _ in told] == photos.ids == list(dict.fromkeys(row["item"] for row in rows))
    assert [name for name, error in told if error] == ["broken.png"] == list(merged.failed)
    assert (merged.finished, merged.items) == (4, 4)
    (failed,) = [row for row in rows if row["item"] == "broken.png"]
    assert "is damaged" in failed["error"] and failed["token"] is None and failed["image"].endswith("broken.png")
    for row in (row for row in rows if row["error"] is None):
        found = Explanation.load(tmp_path / "out" / row["file"])
        index = row["token_index"]
        assert row["map"] == found.token_maps[index].tolist() and row["token"] == found.tokens[index]
        assert row["prompt"] == "What?" and not found.images


def test_rows_are_those_of_explain(finish: Any, tmp_path: Path) -> None:
    rows = finish(SHAPES, tmp_path / "out", Asked())
    for item in SHAPES:
        found = finish.explainer.explain(item.image, item.question, item.answer)
        own = [row for row in rows if row["item"] == item.id]
        assert [row["token"] for row in own] == found.tokens and own[0]["prompt"] == item.question
        maps = torch.tensor([row["map"] for row in own])
        torch.testing.assert_close(maps, found.token_maps, rtol=1e-4, atol=1e-4 * found.token_maps.max().item())


def test_the_prompt_and_the_answer(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    asked, bare = Item("a", path, "Which?", "This."), Item("b", path)
    (image,), *words = Asked().request(asked)
    assert words == ["Which?", "This."] and image.tobytes() == Image.open(path).tobytes()
    assert Asked("Look. {question} {x}", written=True).request(asked)[1:] == ("Look. Which? {x}", None)
    assert Asked("Describe.").request(bare)[1:] == ("Describe.", None)
    with pytest.raises(InputError, match="item 'b' asks nothing: give a prompt"):
        Asked().request(bare)
    with pytest.raises(InputError, match="gone"):
        Asked("x").request(Item("c", error=InputError("gone")))


def test_what_is_finished_is_not_explained_again(photos: DataSet, finish: Any, tmp_path: Path, counted: Any) -> None:
    first = finish(photos, tmp_path / "out")
    before = len(counted("explain_batch"))
    assert finish.run(photos, tmp_path / "out") == [] and len(counted("explain_batch")) == before
    assert finish.merged(tmp_path / "out")[1] == first


def test_every_beginning_ends_in_the_same_table(finish: Any, tmp_path: Path) -> None:
    """Whole lines of the ledger are what a kill leaves: the rest is made again."""
    asked = Asked(batch_size=4)
    whole = finish(SHAPES, tmp_path / "whole", asked) and (tmp_path / "whole" / "tokens.parquet").read_bytes()
    ledger = (tmp_path / "whole" / "_finished" / "0-of-1.jsonl").read_text().splitlines(keepends=True)
    for count in (0, 1, 5, len(ledger) - 1):
        out = tmp_path / str(count)
        (out / "_finished").mkdir(parents=True)
        (out / "_finished" / "0-of-1.jsonl").write_text("".join(ledger[: 1 + count]) + '{"key": "pl')
        os.symlink(tmp_path / "whole" / "_explanations", out / "_explanations")
        assert len(finish.run(SHAPES, out, asked)) == len(SHAPES) - count
        assert merge(out).path.read_bytes() == whole


def test_workers_share_a_job(finish: Any, tmp_path: Path) -> None:
    asked = Asked(batch_size=4)
    finish(SHAPES, tmp_path / "one", asked)
    told = [finish.run(SHAPES, tmp_path / "two", asked, share=Share(rank, 3)) for rank in (2, 0)]
    partial, _ = finish.merged(tmp_path / "two")
    assert partial.finished == sum(map(len, told)) < len(SHAPES) == partial.items
    told.append(finish.run(SHAPES, tmp_path / "two", asked, share=Share(1, 3)))
    assert sorted(name for some in told for name, _ in some) == sorted(SHAPES.ids)
    shown = [{SHAPES[SHAPES.ids.index(name)].picture.args for name, _ in some} for some in told]  # type: ignore[union-attr]
    assert all(one.isdisjoint(other) for one in shown for other in shown if one is not other)
    assert (tmp_path / "one" / "tokens.parquet").read_bytes() == merge(tmp_path / "two").path.read_bytes()
    assert finish.run(SHAPES, tmp_path / "two", asked) == []


def test_one_by_one_a_picture_is_shared(finish: Any, tmp_path: Path, counted: Any) -> None:
    rows = finish(SHAPES, tmp_path / "out", Asked(batch_size=1))
    assert {len(args[1]) for args in counted("explain_many")} == {
        sum(one.picture.args == item.picture.args for one in SHAPES)  # type: ignore[union-attr]
        for item in SHAPES
    }
    assert [*dict.fromkeys(row["item"] for row in rows)] == SHAPES.ids and not counted("explain_batch")


def test_one_bad_question_of_a_picture_costs_itself(finish: Any, tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    path = lines(tmp_path / "a.jsonl", *({"image": "a.png", "question": text} for text in ("What?", " ", "Why?")))
    told = finish.run(read("jsonl", path), tmp_path / "out", Asked(batch_size=1))
    assert [error is None for _, error in told] == [True, False, True]


def test_other_methods_run_one_by_one(explainer: Any, tmp_path: Path, photos: DataSet) -> None:
    other = explainer.with_method("attention")
    with Job(photos, tmp_path / "out", Asked("What?"), {}, alone=True) as job:
        assert [error is None for _, error in job.run(other)] == [True, False, True, True]


def test_sampled_answers_are_drawn_again_alike(finish: Any, tmp_path: Path, photos: DataSet) -> None:
    asked = Asked("What?", arguments={"do_sample": True, "temperature": 3.0, "max_new_tokens": 6})
    torch.manual_seed(1)
    first = finish(photos, tmp_path / "a", asked)
    state = torch.get_rng_state()
    assert finish(photos, tmp_path / "b", asked) == first and torch.equal(torch.get_rng_state(), state)


def test_other_settings_or_data_are_refused(photos: DataSet, finish: Any, tmp_path: Path) -> None:
    finish(photos, tmp_path / "out", by={"model": "m"})
    for asked, more, said in (
        (Asked("Why?"), {"by": {"model": "m"}}, 'prompt "What?", not "Why?"'),
        (Asked("What?", batch_size=2), {"by": {"model": "m"}}, "batch_size null, not 2"),
        (Asked("What?"), {"by": {"model": "n"}}, 'model "m", not "n"'),
        (Asked("What?"), {"by": {"model": "m"}, "pictures": True}, "pictures false, not true"),
        (Asked("What?"), {"by": {"model": "m"}, "count": 2}, "items 4, not 2; ids"),
        (Asked("Why?"), {"by": {"model": "m"}, "share": Share(1, 2)}, 'prompt "What?", not "Why?"'),
    ):
        with pytest.raises(InputError) as refused:
            finish.run(photos, tmp_path / "out", asked, **more)
        assert said in str(refused.value)


def test_two_at_once_are_refused(photos: DataSet, finish: Any, tmp_path: Path) -> None:
    with Job(photos, tmp_path / "out", Asked("What?"), {}), pytest.raises(FileError, match="by another process"):
        finish.run(photos, tmp_path / "out")
    assert len(finish.run(photos, tmp_path / "out")) == 4


def test_no_items_and_no_job(finish: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="jsonl: there is no item to explain"):
        finish.run(read("jsonl", lines(tmp_path / "a.jsonl")), tmp_path / "out")
    with pytest.raises(InputError, match="no job has begun in"):
        merge(tmp_path / "nowhere")


def test_items_of_the_same_name_are_all_there(finish: Any, tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    path = lines(tmp_path / "a.jsonl", *[{"image": "a.png", "id": "same", "question": "What?"}] * 3)
    rows = finish(read("jsonl", path), tmp_path / "out", Asked())
    assert list(dict.fromkeys(row["item"] for row in rows)) == ["same", "same#1", "same#2"]


def test_a_full_disk_ends_the_job(
    photos: DataSet, finish: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(FileError, match="No space left on device"):
        patch.setattr(files.Path, "write_bytes", full)
        finish.run(photos, tmp_path / "out")
    assert len(finish.run(photos, tmp_path / "out")) == 4


def test_a_place_that_is_a_file(photos: DataSet, finish: Any, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(FileError, match="cannot make the folder"):
        finish.run(photos, tmp_path / "out")


def test_pictures_on_request(photos: DataSet, finish: Any, tmp_path: Path) -> None:
    finish.run(photos, tmp_path / "out", pictures=True)
    assert sorted(os.listdir(tmp_path / "out" / "_pictures")) == ["00000000.png", "00000002.png", "00000003.png"]

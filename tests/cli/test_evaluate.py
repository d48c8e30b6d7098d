"""`dexar-fast eval`: what it writes, prints and refuses, how it ends, and each paper's table in one command."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import refused, run
from PIL import Image
from small_data import damaged, lines, picture

from dexar_fast import data
from dexar_fast.cli.jobs.run import SOME_FAILED
from dexar_fast.jobs.eval import protocols


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    return str(tmp_path / "out")


def figures(out: str) -> dict[tuple[str, str], dict[str, Any]]:
    (model,) = json.loads(Path(out, "figures.json").read_text())["models"]
    return {(each["metric"], each["method"]): each for each in model["figures"]}


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Two pictures of PascalVOC's layout: a cat in one, a dog and a cat in the other, void around them."""
    home = tmp_path / "VOC2012"
    (home / "ImageSets" / "Segmentation").mkdir(parents=True)
    (home / "SegmentationClass").mkdir()
    for name, label in (("a", 8), ("b", 12)):
        picture(home / "JPEGImages" / f"{name}.jpg", 60, 80)
        mask = np.zeros((60, 80), np.uint8)
        mask[9:31, 9:41], mask[10:30, 10:40] = 255, label
        mask[40:50, 50:70] = 8
        Image.fromarray(mask).save(home / "SegmentationClass" / f"{name}.png")
    (home / "ImageSets" / "Segmentation" / "val.txt").write_text("a\nb\n")
    return home


def test_data_in_tables_out(out: str) -> None:
    command = ("eval", "--data", "shapes:count=2,asked=one", "--methods", "attention", "--method", "random:seed=3")
    command += ("--metrics", "epg,pointing", "--n", "1", "--out", out)
    done = run(*command)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [f"{out}/{name}" for name in ("report.html", "report.md", "figures.json")]
    assert sorted(os.listdir(out)) == ["cases", "figures.json", "items.jsonl", "report.html", "report.md"]
    assert figures(out)["epg", "random:seed=3"]["n"] == 1
    before = Path(out, "report.html").read_bytes()
    assert run(*command).exit_code == 0 and Path(out, "report.html").read_bytes() == before
    assert "begun with" in refused(run(*command, "--seed", "1"))


def test_failures_are_named_and_tell_in_the_status(out: str, tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    damaged(tmp_path / "b.png")
    path = lines(tmp_path / "d.jsonl", *({"image": f"{name}.png", "question": "What?", "id": name} for name in "ab"))
    done = run("eval", "--data", str(path), "--methods", "attention", "--metrics", "blank", "--out", out)
    assert done.exit_code == SOME_FAILED
    assert done.stderr.startswith("dexar-fast: embedded b: ") and done.stderr.count("\n") == 1
    assert figures(out)["blank", "attention"]["n"] == 1


def test_other_rows_in_the_file_are_refused(tmp_path: Path, out: str) -> None:
    picture(tmp_path / "a.png")
    for question, refusal in (("What?", ""), ("What?", ""), ("Why?", "was begun with data_content")):
        path = lines(tmp_path / "d.jsonl", {"image": "a.png", "question": question, "answer": "A."})
        options = ["--data", str(path), "--methods", "attention", "--metrics", "blank", "--out", out]
        done = run("eval", *options)
        assert refusal in refused(done) if refusal else done.exit_code == 0


def test_what_failed_is_tried_again_on_request(tmp_path: Path, out: str) -> None:
    damaged(tmp_path / "b.png")
    path = lines(tmp_path / "d.jsonl", {"image": "b.png", "question": "What?", "id": "b"})
    options = ["--data", str(path), "--methods", "attention", "--metrics", "blank", "--out", out]
    assert run("eval", *options).exit_code == SOME_FAILED
    picture(tmp_path / "b.png")
    assert run("eval", *options).exit_code == SOME_FAILED
    assert run("eval", *options, "--retry-failed").exit_code == 0
    assert figures(out)["blank", "attention"]["n"] == 1


def test_workers_share_an_evaluation(out: str) -> None:
    """Items of one picture are one worker's; settings of another evaluation are refused whoever began."""
    options = ["--data", "shapes:count=2", "--methods", "attention", "--metrics", "blank", "--out", out]
    done = run("eval", *options, "--rank", "1", "--world", "2")
    assert done.exit_code == 0 and "worker 1 of 2 is done; when all are, one process alone" in done.stderr
    keys = [json.loads(line)["key"] for line in Path(out, "items-1-of-2.jsonl").read_text().splitlines()[1:]]
    assert keys and all(key.startswith("embedded plain-10000001-") for key in keys)
    assert sorted(os.listdir(out)) == ["items-1-of-2.jsonl"]
    assert "was begun with seed 0, not 1" in refused(run("eval", *options, "--seed", "1"))
    assert run("eval", *options).exit_code == 0
    assert figures(out)["blank", "attention"]["n"] == len(data.of("shapes:count=2"))


@pytest.mark.parametrize(
    "options, words",
    [
        (["--data", "shape"], "did you mean 'shapes'"),
        (["--data", "nowhere/list.jsonl"], "does not exist"),
        (["--methods", "dexar"], "did you mean 'dex-ar'"),
        (["--metrics", "egp"], "did you mean 'epg'"),
        (["--metrics", "quantus:Nothing"], "quantus"),
        (["--metrics", "insertion:fill=white"], "fill is one of"),
        (["--methods", "centre"], "is a chance map"),
        (["--protocol", "dexar", "--data", "shapes"], "protocol 'dexar' is none of dex-ar, eagle, tam"),
        (["--protocol", "tam"], "name them with --data"),
        (["--models", "embedded,embedded"], "named twice"),
    ],
)
def test_what_is_refused_before_a_model_is_loaded(options: list[str], words: str, out: str) -> None:
    assert words in refused(run("eval", *options, "--out", out))
    assert not os.path.exists(out)


def test_a_model_that_is_not_there(out: str) -> None:
    refused(run("eval", "--data", "shapes:count=1", "--models", "/nowhere/model", "--out", out))


def test_the_table_of_dex_ar_s_paper_of_a_folder_in_its_layout(voc: Path, out: str) -> None:
    done = run(
        "eval", "--protocol", "dex-ar", "--models", "embedded", "--data", f"voc-qa:{voc}", "--n", "1", "--out", out
    )
    assert done.exit_code == 0, done.output
    found = figures(out)
    asked = protocols.read("dex-ar")
    assert {method for _, method in found} > set(asked["methods"])
    assert {metric for metric, _ in found} == {*asked["metrics"]}
    share = found["epg", "uniform"]["value"]
    assert share == pytest.approx(800 / (80 * 60 - 104), rel=1e-5)  # the void around the first object does not count


def test_the_table_of_tam_s_paper(voc: Path, out: str) -> None:
    done = run("eval", "--protocol", "tam", "--models", "embedded", "--data", f"voc-qa:{voc}", "--n", "2", "--out", out)
    assert done.exit_code == 0, done.output
    assert figures(out)["f1-iou", "tam"]["n"] == 2


@pytest.mark.parametrize("name", protocols.names())
def test_a_protocol_names_what_there_is(name: str) -> None:
    from dexar_fast.jobs.eval.measures import registry as measures
    from dexar_fast.methods import registry as methods

    found = protocols.read(name)
    assert measures.each(found["metrics"]) and all(map(methods.of, found["methods"]))
    assert found.keys() <= {"methods", "metrics", "models", "prompt"}

"""`dexar-fast run` and `dexar-fast merge`: what they write, print and refuse, and how they end."""

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command_line import FakeExplainer, refused, run
from small_data import damaged, lines, picture

import dexar_fast
from dexar_fast.cli.jobs import progress
from dexar_fast.cli.jobs.run import SOME_FAILED
from dexar_fast.scale import engine


@pytest.fixture
def photos(tmp_path: Path) -> str:
    for name in ("a.png", "b/ü.png"):
        picture(tmp_path / "photos" / name)
    return str(tmp_path / "photos")


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    return str(tmp_path / "out")


class Loaded(FakeExplainer):
    """Remembers how it was loaded, and loads nothing."""

    @classmethod
    def from_pretrained(cls, name: str | None = None, **options: Any) -> Any:
        cls.loaded = (name, options)
        raise dexar_fast.ModelError("loaded")


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> type[Loaded]:
    Loaded.loaded = None
    monkeypatch.setattr(dexar_fast, "Explainer", Loaded, raising=False)
    return Loaded


def test_a_folder_of_pictures_in_a_table_out(photos: str, out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--prompt", "What?", "--out", out, "--max-new-tokens", "4"]
    done = run("run", photos, *options)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [f"{out}/tokens.parquet", f"{out}/_report.html"]
    found = pd.read_parquet(out)
    assert found["item"].unique().tolist() == ["a.png", "b/ü.png"] and found["error"].isna().all()
    assert (found.groupby("item").size() <= 4).all() and len(found["map"][0]) == 144
    assert sorted(os.listdir(out)) == ["_explanations", "_finished", "_report.html", "tokens.parquet"]
    monkeypatch.setattr(dexar_fast, "Explainer", None, raising=False)  # nothing is left: no model is loaded
    assert run("run", photos, *options).exit_code == 0
    again = refused(run("run", photos, *options, "--method", "attention"))
    assert 'method "dex-ar", not "attention"' in again


def test_failures_are_named_and_tell_in_the_status(photos: str, out: str) -> None:
    damaged(Path(photos, "broken.png"))
    done = run("run", photos, "--prompt", "What?", "--out", out, "--method", "uniform")
    assert done.exit_code == SOME_FAILED
    assert "1 of 3 items failed; the column error says why:" in done.stderr
    assert "dexar-fast: broken.png: " in done.stderr
    again = run("merge", out)
    assert again.exit_code == SOME_FAILED and "broken.png" in again.stderr


def test_failures_are_tried_again_on_request(photos: str, out: str) -> None:
    damaged(Path(photos, "broken.png"))
    options = ["--prompt", "What?", "--out", out, "--method", "uniform"]
    assert run("run", photos, *options).exit_code == SOME_FAILED
    picture(Path(photos, "broken.png"))
    assert run("run", photos, *options).exit_code == SOME_FAILED
    assert run("run", photos, *options, "--retry-failed").exit_code == 0
    assert run("run", photos, *options).exit_code == 0


def test_nothing_is_asked(photos: str, out: str) -> None:
    done = run("run", photos, "--out", out)
    assert done.exit_code == SOME_FAILED and "a.png: item 'a.png' asks nothing: give a prompt" in done.stderr


def test_workers_and_their_merge(photos: str, out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--prompt", "What?", "--out", out, "--batch-size", "1"]
    one = run("run", photos, *options, "--rank", "0", "--world", "2")
    assert one.exit_code == 0 and not one.stdout
    assert f"worker 0 of 2 is done; when all are: dexar-fast merge {out}" in one.stderr
    partial = run("merge", out)
    assert partial.exit_code == SOME_FAILED and "1 of 2 items are not finished" in partial.stderr
    monkeypatch.setenv("RANK", "1"), monkeypatch.setenv("WORLD_SIZE", "2")
    assert run("run", photos, *options).exit_code == 0
    assert run("merge", out).exit_code == 0 and pd.read_parquet(out)["item"].nunique() == 2


def test_under_ray_one_process_hands_out_the_whole(photos: str, out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a script of sbatch, too, whose ranks are those of processes; not where a share is asked for."""
    handed: list[int] = []
    monkeypatch.setattr(engine, "run", lambda job, *_: handed.append(job.items) or iter(()))
    monkeypatch.setenv("SLURM_PROCID", "0"), monkeypatch.setenv("SLURM_NTASKS", "4")
    options = ["--prompt", "What?", "--out", out, "--batch-size", "1", "--engine", "ray"]
    done = run("run", photos, *options)
    assert done.exit_code == SOME_FAILED and "2 of 2 items are not finished" in done.stderr
    assert run("run", photos, *options, "--rank", "1", "--world", "2").exit_code == 0
    assert handed == [2, 1]
    assert sorted(os.listdir(Path(out, "_finished"))) == ["0-of-1.jsonl", "1-of-2.jsonl"]


def test_options_reach_model_and_job(photos: str, out: str, loaded: type[Loaded]) -> None:
    options = ["--model", "m", "--device", "cpu", "--dtype", "float64", "--revision", "v2", "--chunk-size", "3"]
    run("run", photos, "--prompt", "What?", "--out", out, *options, "--method", "tam", "--n", "1", "--pictures")
    assert loaded.loaded is not None and loaded.loaded[0] == "m"
    given = {"device": "cpu", "dtype": "float64", "revision": "v2", "method": "tam", "chunk_size": 3}
    assert given.items() <= loaded.loaded[1].items()
    ledger = Path(out, "_finished", "0-of-1.jsonl").read_text()
    for part in ('"items": 1', '"model": "m"', '"dtype": "float64"', '"pictures": true', '"method": "tam"'):
        assert part in ledger
    assert '"device"' not in ledger


def test_other_weights_in_the_folder_of_the_model_are_refused(
    photos: str, out: str, loaded: type[Loaded], tmp_path: Path
) -> None:
    (tmp_path / "m").mkdir()
    options = ["--model", str(tmp_path / "m"), "--prompt", "What?", "--out", out]
    for weights, said in ((b"one", "loaded"), (b"one", "loaded"), (b"two", "was begun with model_files")):
        (tmp_path / "m" / "model.safetensors").write_bytes(weights)
        assert said in refused(run("run", photos, *options))
        with Path(out, "_finished", "0-of-1.jsonl").open("a") as ledger:
            ledger.write('{"key": "x", "record": {"index": 9, "error": "no"}}\n')


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["nowhere/"], "nowhere/ does not exist"),
        (["shapes", "--method", "dexar"], "dexar"),
        (["shapes", "--rank", "1"], "rank and world go together"),
        (["shapes", "--rank", "2", "--world", "2"], "the rank is a number from 0 to 1"),
        (["shapes", "--generate", "temperature"], "is not NAME=VALUE"),
        (["shapes", "--revision", "x"], "--revision is that of a model on the Hub"),
    ],
)
def test_what_is_refused_before_a_model_is_loaded(
    options: list[str], said: str, out: str, loaded: type[Loaded]
) -> None:
    assert said in refused(run("run", *options, "--out", out)) and loaded.loaded is None


def test_no_job_to_merge(tmp_path: Path) -> None:
    assert "no job has begun in" in refused(run("merge", str(tmp_path)))


def test_rows_of_a_file(tmp_path: Path, out: str) -> None:
    picture(tmp_path / "a.png")
    rows = [
        {"image": "a.png", "question": "What?", "answer": " A red circle."},
        {"image": "b.png", "question": "What?"},
    ]
    done = run("run", str(lines(tmp_path / "a.jsonl", *rows)), "--out", out)
    assert done.exit_code == SOME_FAILED and f"#1: {tmp_path / 'b.png'} is missing" in done.stderr
    found = pd.read_parquet(out)
    assert "".join(found["token"][found["item"] == "#0"]) == " A red circle."


def test_other_rows_in_the_file_are_refused(tmp_path: Path, out: str, loaded: type[Loaded]) -> None:
    picture(tmp_path / "a.png")
    for question, said in (("What?", "loaded"), ("What?", "loaded"), ("Why?", "was begun with data_content")):
        path = lines(tmp_path / "a.jsonl", {"image": "a.png", "question": question})
        assert said in refused(run("run", str(path), "--out", out))
        with Path(out, "_finished", "0-of-1.jsonl").open("a") as ledger:
            ledger.write('{"key": "x", "record": {"index": 9, "error": "no"}}\n')


def test_a_log_tells_the_time_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = iter([0.0, *(30.0 * n for n in range(1, 5))])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.progress(2, 10) as advance:
        for _ in range(4):
            advance()
    told = capsys.readouterr().err.splitlines()
    assert told == ["dexar-fast: 4 of 10 items, 3 minutes left", "dexar-fast: 6 of 10 items, 2 minutes left"]

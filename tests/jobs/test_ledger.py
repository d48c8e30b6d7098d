"""The ledger of finished items: torn lines, other settings, two processes, a full disk, kills."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dexar_fast.errors import FileError, InputError
from dexar_fast.jobs.finished import ledger
from dexar_fast.jobs.finished.ledger import Ledger

ASKED = {"prompt": "What is it?", "sizes": [1, 2]}


def test_what_was_added_is_there_again_in_its_order(tmp_path: Path) -> None:
    records = {"b": {"score": 0.1}, "\udcff é 猫\n": [None, "ü"], "a": 3}
    with Ledger(tmp_path / "l", ASKED) as made:
        made.add({"b": records["b"]})
        made.add({key: records[key] for key in records if key != "b"})
        assert dict(made) == records
    with Ledger(tmp_path / "l", ASKED) as again:
        assert list(again.items()) == list(records.items())
        again.add({"c": 1})
    assert ledger.read(tmp_path / "l") == (ASKED, records | {"c": 1})


def test_every_cut_of_the_file_keeps_the_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "l"
    with Ledger(path, ASKED) as made:
        made.add({str(index): index for index in range(3)})
    data = path.read_bytes()
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        with Ledger(path, ASKED) as again:
            whole = max(0, data[:length].count(b"\n") - 1)
            assert list(again.values()) == list(range(whole))
            again.add({str(index): index for index in range(whole, 3)})
        assert path.read_bytes() == data


def test_a_key_is_written_once(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l", ASKED) as made:
        made.add({"a": 1})
        before = made.path.read_bytes()
        with pytest.raises(InputError, match="'a' is finished already"):
            made.add({"b": 1, "a": 2})
        assert made.path.read_bytes() == before and dict(made) == {"a": 1}


def test_a_record_that_is_made_again_takes_the_place_of_the_first(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l", ASKED) as made:
        made.add({"a": 1, "b": 2})
        made.add({"a": 3}, again=True)
        assert list(made.items()) == [("a", 3), ("b", 2)]
    assert ledger.read(tmp_path / "l")[1] == {"a": 3, "b": 2}


@pytest.mark.parametrize("record", [float("nan"), {1, 2}, {"x": b""}])
def test_what_is_no_json_is_refused(tmp_path: Path, record: object) -> None:
    with Ledger(tmp_path / "l", ASKED) as made:
        with pytest.raises(InputError, match="plain JSON"):
            made.add({"a": record})
        assert not made


def test_other_settings_are_named(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l", ASKED | {"n": 1}) as made:
        made.add({"a": 1})
    with pytest.raises(InputError, match=r"sizes \[1, 2\], not \[1\]; n 1, not null; seed null, not 7: ask the same"):
        Ledger(tmp_path / "l", {"prompt": "What is it?", "sizes": [1], "seed": 7})
    Ledger(tmp_path / "l", ASKED | {"n": 1}).close()


def test_settings_that_nothing_was_made_with_bind_nobody(tmp_path: Path) -> None:
    """As those of a model that does not exist."""
    Ledger(tmp_path / "l", ASKED | {"a setting with a long name": "x" * 100}).close()
    with Ledger(tmp_path / "l", ASKED) as made:
        made.add({"a": 1})
    assert ledger.read(tmp_path / "l") == (ASKED, {"a": 1})


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l", ASKED) as made:
        with pytest.raises(FileError, match="written by another process"):
            Ledger(tmp_path / "l", ASKED)
        made.add({"a": 1})
        assert ledger.read(tmp_path / "l")[1] == {"a": 1}
    Ledger(tmp_path / "l", ASKED).close()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hello\n", "no ledger"),
        ("[1]\n", "no ledger"),
        ('{"dexar_fast_ledger": 2, "asked": {}}\n', "format 2"),
        ('{"dexar_fast_ledger": 1, "asked": {}}\n{"key": "a"\n', "damaged in line 2"),
        ('{"dexar_fast_ledger": 1, "asked": {}}\n{"key": "a", "record": 1}\n\n', "damaged in line 3"),
    ],
)
def test_what_is_no_ledger_stays_as_it_is(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "l"
    path.write_text(text)
    with pytest.raises(FileError, match=said):
        Ledger(path, {})
    assert path.read_text() == text


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file"):
        Ledger(tmp_path / "missing" / "l", ASKED)
    with pytest.raises(FileError, match="Is a directory"):
        Ledger(tmp_path, ASKED)
    (tmp_path / "empty").touch()
    with pytest.raises(FileError, match="is empty"):
        ledger.read(tmp_path / "empty")


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write

    def full(file: int, data: bytes) -> int:
        if len(data) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, data[: len(data) // 2])

    with Ledger(tmp_path / "l", ASKED) as made:
        made.add({"a": 1})
        before = made.path.read_bytes()
        with monkeypatch.context() as patch, pytest.raises(FileError, match="No space left on device; free the disk"):
            patch.setattr(os, "write", full)
            made.add({"b": "x" * 100})
        assert made.path.read_bytes() == before and list(made) == ["a"]
        made.add({"b": 2})
    assert ledger.read(tmp_path / "l")[1] == {"a": 1, "b": 2}


_WRITER = """
import sys
from dexar_fast.jobs.finished.ledger import Ledger
with Ledger(sys.argv[1], {"n": 200}) as made:
    print("open", flush=True)
    for index in range(200):
        if str(index) not in made:
            made.add({str(index): "x" * (index * 37 % 5000)})
"""


def test_kills_at_random_times_lose_nothing(tmp_path: Path) -> None:
    path, seen = tmp_path / "l", 0
    for _ in range(4):
        child = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(random.random() * 0.05)
        child.send_signal(signal.SIGKILL)
        child.wait()
        found = ledger.read(path)[1]
        assert len(found) >= seen and found == {str(i): "x" * (i * 37 % 5000) for i in range(len(found))}
        seen = len(found)
    subprocess.run([sys.executable, "-c", _WRITER, str(path)], check=True)
    lines = path.read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines[1:]] == [str(index) for index in range(200)]

"""Data sets by name: what is asked of a caller, and that every name leads to a reader with help."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_data import lines, picture

from dexar_fast.data import help_of, names, of, read
from dexar_fast.errors import InputError


@pytest.mark.parametrize("name", names())
def test_every_name_has_a_reader_that_says_what_it_reads(name):
    assert len(help_of(name)) > 40


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("pascal", {"root": "."}, "data set 'pascal' is none of coco-captions, .*vqav2$"),
        ("vo", {"root": "."}, "did you mean 'voc'?"),
        ("voc", {}, r"voc: root must be given: see help_of\('voc'\)"),
        ("eagle", {}, "eagle: root and images must be given"),
        ("voc", {"root": ".", "year": 2012}, "voc: 'year' is no option of this data set: it has root, split"),
        ("shapes", {"root": "."}, "shapes: 'root' is no option of this data set: it has count, scenes"),
    ],
)
def test_a_wrong_call_says_what_is_due(name, given, message):
    with pytest.raises(InputError, match=message):
        read(name, **given)


def test_a_data_set_as_a_command_line_names_it(tmp_path):
    for place in ("photos,a=b", "photos:2", "one,two"):
        picture(tmp_path / place / "a.png")
        assert of(str(tmp_path / place)).ids == ["a.png"]
    assert of(f"folder:{tmp_path / 'photos:2'}").ids == of(f"folder:{tmp_path / 'one,two'}").ids == ["a.png"]
    row = {"image": "a.png", "id": "x", "text": "What?"}
    assert of(str(lines(tmp_path / "photos:2" / "a.json", row))).ids == ["x"]
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.Parquet")
    assert of(str(tmp_path / "a.Parquet")).name == "parquet"
    columns = f'jsonl:{tmp_path / "photos:2" / "a.json"},columns={{"question":"text","answer":"said"}}'
    assert of(columns)[0].question == "What?"
    assert len(of("shapes:count=2,scenes=crowd")) > 2 and of("shapes").ids[0].startswith("plain-")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("photos/", "photos/ does not exist: name a folder of pictures, a file, or one of coco"),
        ("a.jsonl", "a.jsonl does not exist"),
        ("shaps:count=2", "data set 'shaps' is none of .*; did you mean 'shapes'?"),
        ("voc:a,train", "missing a,train"),
        ("shapes:colour=red", "shapes: 'colour' is no option"),
        ("voc", "voc: root must be given"),
    ],
)
def test_what_names_no_data_set(text, message):
    with pytest.raises(InputError, match=message):
        of(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("shapes:count=x", "shapes: count is a whole number, not 'x'"),
        ("shapes:count=1.5", "shapes: count is a whole number, not 1.5"),
        ("shapes:scenes=3", "shapes: scenes is a text, not 3"),
        ("voc:.,split=2012", "voc: split is a text, not 2012"),
        ("folder:.,question=[1]", r"folder: question is a text, not \[1\]"),
        ("jsonl:q.jsonl,columns=image", "jsonl: columns is a mapping, not 'image'"),
        ("pope:.,images=1", "pope: images is a text or a path, not 1"),
    ],
)
def test_an_option_of_another_kind_is_named(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        of(text)


def test_a_file_that_lists_nothing_is_refused_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image,question\na.png,What?\n")
    with pytest.raises(InputError, match=r"line 1 of .*a\.csv is not JSON"):
        of(str(tmp_path / "a.csv"))
    with pytest.raises(InputError, match=r"b\.jpg is a single picture: name a folder"):
        of(str(picture(tmp_path / "b.jpg")))


def test_a_data_set_says_which_it_is(tmp_path: Path) -> None:
    """The same however it was asked for, and another for other places and options."""
    for name in ("a", "b"):
        picture(tmp_path / name / "x.png")
    sources = [of(str(tmp_path / name)).source for name in ("a", "b")]
    assert sources == [f"folder:{tmp_path}/a", f"folder:{tmp_path}/b"] and of(sources[0]).source == sources[0]
    assert read("shapes").source == "shapes" and of("shapes:count=2,asked=one").source == "shapes:count=2,asked=one"


def test_whole_numbers_may_be_numpys() -> None:
    assert len(read("shapes", count=np.int64(2), asked="one")) == 2

"""What tells one data set from another of the same names."""

import pickle
import shutil
import subprocess
import sys
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from small_data import box_mask, lines, picture

from dexar_fast.data import DataSet, Item, Region, of, qa, read
from dexar_fast.data.content import of_file, of_records
from dexar_fast.errors import InputError

ROWS = [{"image": "a.png", "question": "What?"}, {"image": "b.png", "question": "Why?"}]
OTHER = [ROWS[0], {"image": "b.png", "question": "How?"}]


def jsonl(path, rows):
    return read("jsonl", lines(path, *rows))


def parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)
    return read("parquet", path)


@pytest.mark.parametrize("written", [jsonl, parquet])
def test_other_rows_of_the_same_ids(tmp_path, written):
    first, other = written(tmp_path / "first", ROWS), written(tmp_path / "other", OTHER)
    assert first.ids == other.ids and first.content() != other.content()
    assert (first.content([0]) == other.content([0])) is (written is jsonl)  # a Parquet file counts as a whole
    copy = read(first.name, shutil.copy(tmp_path / "first", tmp_path / "copy"))
    assert copy.content() == first.content() == pickle.loads(pickle.dumps(first)).content()


def test_a_row_that_is_no_json_and_one_that_is_broken(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"image": "a.png"}\n{"image\n3\n')
    assert len({read("jsonl", tmp_path / "a.jsonl").content([index]) for index in range(3)}) == 3


def test_records_are_told_apart_by_what_they_say_in_every_process(tmp_path):
    deep = []
    deep.append(deep)
    records = [(1, "a"), (1, "b"), tmp_path, b"a", b"b", None, {"a": 1}, InputError("x"), deep]
    assert len({of_records([record]) for record in records}) == len(records)
    assert of_records([object()]) == of_records([object()]) and of_records([], "a") != of_records([], "b")
    script = "from dexar_fast.data import of; print(of('shapes:count=2').content())"
    told = {subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout for _ in range(2)}
    assert told == {of("shapes:count=2").content() + "\n"}
    assert of_file(tmp_path / "gone") == ""


def test_items_of_ones_own_and_questions_about_them():
    """Functions that make pictures and masks count by their kind: their addresses are of one process."""

    def made(question):
        region = Region("cat", outline=lambda height, width: box_mask(1, 2, 5, 6))
        return DataSet("own", [Item("a", partial(Image.new, "RGB", (9, 8)), question, regions=(region,))], keep, named)

    for each in (lambda data: data, qa.of):
        assert each(made("What?")).content() == each(made("What?")).content() != each(made("Why?")).content()


def named(item):
    return item.id


def keep(name, item):
    return item


def test_texts_of_a_table_of_datasets(tmp_path):
    module = pytest.importorskip("datasets")
    path = str(picture(tmp_path / "a.png"))
    first, again, other = (
        read("datasets", module.Dataset.from_list([{"image": path, "question": one}])) for one in ("a", "a", "b")
    )
    assert first.content() == again.content() != other.content()

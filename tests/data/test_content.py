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
from dexar_fast.data.content import holds_bytes, of_file, of_records
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
    assert first.content([0]) == other.content([0])
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


TOLD = {
    "image": ["a.png", "b.png"],
    "question": ["What?", "Why?"],
    "answer": ["A cat", "A dog"],
    "references": [["cat"], ["dog"]],
    "answer_ids": [[1, 2], [3, 2]],
    "boxes": [[[0, 0, 3, 3]], [[0, 0, 3, 4]]],
    "labels": [["cat"], ["dog"]],
    "masks": [["a-mask.png"], ["b-mask.png"]],
    "phrases": [[[2, 5]], [[0, 5]]],
}


def of_datasets(path, rows):
    return read("datasets", pytest.importorskip("datasets").Dataset.from_list(rows))


def unlike(column):
    """Two tables of one row that differ in one column."""
    row = {name: values[0] for name, values in TOLD.items()}
    return [row], [row | {column: TOLD[column][1]}]


@pytest.mark.parametrize("column", TOLD)
@pytest.mark.parametrize("written", [jsonl, parquet, of_datasets])
def test_every_column_of_a_table_is_told(tmp_path, written, column):
    first, other = (written(tmp_path / "rows", rows).content() for rows in unlike(column))
    assert first != other


@pytest.mark.parametrize("written", [parquet, of_datasets])
@pytest.mark.parametrize("column", ["image", "masks", "answer"])
def test_the_bytes_of_pictures_are_not_told(tmp_path, written, column):
    """Whichever of the columns holds them, however deep, and what no column of ours holds neither."""
    rows = [ROWS[0] | {column: [{"bytes": value, "path": "a.png"}], "theirs": value} for value in (b"a", b"b")]
    first, other = (written(tmp_path / "rows", [row]).content() for row in rows)
    assert first == other != written(tmp_path / "rows", [rows[0] | {"question": "Why?"}]).content()


def test_pictures_of_datasets_are_not_told(tmp_path):
    module = pytest.importorskip("datasets")
    one, two = (str(picture(tmp_path / name, size, 8)) for name, size in (("a.png", 8), ("b.png", 9)))
    tables = [module.Dataset.from_dict({"image": [path], "question": ["a"]}) for path in (one, two)]
    first, other = (read("datasets", table.cast_column("image", module.Image())).content() for table in tables)
    assert first == other


def test_rows_of_datasets_behind_those_that_are_asked():
    first, longer = (of_datasets(None, rows) for rows in (ROWS[:1], ROWS))
    assert first.content() == longer.content([0]) != longer.content([1])


def test_a_parquet_file_in_another_compression_or_other_groups(tmp_path):
    rows = [{"image": "a.png", "question": str(index), "picture": b"x" * index} for index in range(9)]
    written = []
    for number, how in enumerate(({"compression": "none"}, {"compression": "gzip", "row_group_size": 2})):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{number}", **how)
        written.append(read("parquet", tmp_path / f"{number}"))
    for asked in (None, [0], [1, 2, 3, 8]):
        assert written[0].content(asked) == written[1].content(asked)
    assert len({written[1].content([index]) for index in range(9)}) == 9
    pq.write_table(pa.Table.from_pylist([*rows, ROWS[0]]), tmp_path / "longer")
    longer = read("parquet", tmp_path / "longer")
    assert longer.content(range(9)) == written[0].content() != longer.content()


def test_a_parquet_file_that_is_gone_or_damaged(tmp_path):
    data = parquet(tmp_path / "rows", ROWS)
    whole = data.content()
    path = tmp_path / "rows"
    path.write_bytes(b"no Parquet")
    assert data.content() != whole
    path.unlink()
    assert data.content() != whole


@pytest.mark.parametrize(
    ("kind", "held"),
    [
        (pa.string(), False),
        (pa.list_(pa.list_(pa.float64())), False),
        (pa.struct([("binary", pa.string())]), False),
        (pa.dictionary(pa.int32(), pa.string()), False),
        (pa.binary(), True),
        (pa.large_binary(), True),
        (pa.list_(pa.struct([("path", pa.string()), ("bytes", pa.binary())])), True),
        (pa.dictionary(pa.int32(), pa.binary()), True),
        (pa.fixed_shape_tensor(pa.uint8(), (2, 2)), False),
    ],
)
def test_what_kinds_of_columns_hold_bytes(kind, held):
    assert holds_bytes(kind) is held

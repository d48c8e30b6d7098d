"""Data of your own: folders, JSON lines, Parquet, and tables of the `datasets` library."""

import io
import os
import re
import sys

import numpy as np
import pytest
from PIL import Image
from small_data import HEIGHT, WIDTH, box_mask, damaged, lines, picture, polygon, whole_but

from dexar_fast.data import Phrase, names, read, rows
from dexar_fast.errors import InputError, LibraryError
from dexar_fast.jobs.finished.ledger import Ledger


def png(height=HEIGHT, width=WIDTH):
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, "PNG")
    return file.getvalue()


def test_a_folder_gives_every_picture_below_it(tmp_path):
    for name in ("b.png", "a/z.JPG", "a/y.webp"):
        picture(tmp_path / name)
    damaged(tmp_path / "a" / "torn.jpg")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    data = read("folder", tmp_path, question="What is it?")
    assert data.ids == ["a/torn.jpg", "a/y.webp", "a/z.JPG", "b.png"]
    items = whole_but(data, {"a/torn.jpg": r"torn\.jpg cannot be read"})
    assert items["b.png"].question == "What is it?" and items["b.png"].image == tmp_path / "b.png"


def test_links_are_followed_and_what_is_no_data_is_passed_over(tmp_path):
    for name in ("p/a.png", "p/deep/b.png", "beside/c.png", "p/.trash/d.png", "p/._a.png", "p/cases/e.png"):
        picture(tmp_path / name)
    (tmp_path / "p" / "f.pdf").write_bytes(b"%PDF-1.4")
    (tmp_path / "p" / "g.png").symlink_to("nowhere.png")
    (tmp_path / "p" / "h.png").symlink_to("a.png")
    (tmp_path / "p" / "i").symlink_to(tmp_path / "beside")
    (tmp_path / "p" / "deep" / "round").symlink_to(tmp_path / "p")
    os.mkfifo(tmp_path / "p" / "pipe.png")
    data = read("folder", tmp_path / "p")
    assert data.ids == ["a.png", "cases/e.png", "deep/b.png", "g.png", "h.png", "i/c.png"]
    whole_but(data, {"g.png": r"g\.png is missing"})


def test_pictures_that_a_job_drew_are_no_data(tmp_path):
    for name in ("a.png", "out/_pictures/0.png", "_pictures/1.png", "eval/cases/2.png", "eval/3.png"):
        picture(tmp_path / name)
    (tmp_path / "out" / "_finished").mkdir()
    Ledger(tmp_path / "eval" / "items.jsonl", {}).close()
    assert read("folder", tmp_path).ids == ["_pictures/1.png", "a.png", "eval/3.png"]


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no picture"):
        read("folder", tmp_path)
    with pytest.raises(InputError, match="nowhere is no folder"):
        read("folder", str(tmp_path / "nowhere"))


def test_a_row_may_hold_all_that_an_item_holds(tmp_path):
    picture(tmp_path / "p" / "one.png")
    Image.fromarray(np.uint8(255 * box_mask(6, 0, 9, 3))).save(tmp_path / "mask.png")
    row = {
        "id": 7,
        "image": "p/one.png",
        "question": "Where?",
        "answer": "On the mat.",
        "references": ["mat"],
        "answer_ids": [5, 6, 2],
        "boxes": [[1, 2, 5, 6], [6, 0, 9, 3], [0, 0, 2, 2]],
        "masks": [[polygon(1, 2, 5, 6)], "mask.png", {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH]}],
        "labels": ["cat", "mat", "all"],
        "phrases": [[7, 10, [1]], [0, 2]],
    }
    item = whole_but(read("jsonl", lines(tmp_path / "rows.jsonl", row)), {})["7"]
    assert (item.question, item.answer, item.references) == ("Where?", "On the mat.", ("mat",))
    assert item.answer_ids == (5, 6, 2) and item.image == tmp_path / "p" / "one.png"
    assert [region.label for region in item.regions] == ["cat", "mat", "all"] and item.regions[1].box == (6, 0, 9, 3)
    assert np.array_equal(item.masks()[:2], [box_mask(1, 2, 5, 6), box_mask(6, 0, 9, 3)]) and item.masks()[2].all()
    assert item.phrases == (Phrase(7, 10, (1,)), Phrase(0, 2))


@pytest.mark.parametrize(
    ("mode", "black", "coloured"),
    [
        ("RGB", (0, 0, 0), [(0, 0, 1), (1, 0, 0), (0, 1, 0), (255, 0, 0)]),
        ("RGBA", (0, 0, 0, 255), [(0, 0, 1, 255), (1, 0, 0, 0)]),
        ("LA", (0, 255), [(1, 0)]),
        ("P", 0, [1, 2]),
        ("L", 0, [1]),
        ("I;16", 0, [1, 300]),
        ("1", 0, [1]),
    ],
)
def test_dark_colours_of_a_mask_are_not_black(tmp_path, mode, black, coloured):
    picture(tmp_path / "one.png")
    for colour in coloured:
        mask = Image.new(mode, (WIDTH, HEIGHT), black)
        if mode == "P":
            mask.putpalette([0, 0, 0, 0, 0, 1, 9, 0, 0])
        mask.paste(colour, (1, 2, 5, 6))
        mask.save(tmp_path / "mask.png")
        (item,) = read("jsonl", lines(tmp_path / "a.jsonl", {"image": "one.png", "masks": ["mask.png"]}))
        assert np.array_equal(item.masks(), [box_mask(1, 2, 5, 6)])


def test_columns_of_other_names_and_rows_without_ids(tmp_path):
    picture(tmp_path / "one.png")
    path = lines(
        tmp_path / "rows.jsonl", {"file": "one.png", "prompt": "What?", "boxes": [[0, 0, 2, 2]]}, {"file": "one.png"}
    )
    items = whole_but(read("jsonl", path, columns={"image": "file", "question": "prompt"}), {})
    assert list(items) == ["#0", "#1"]
    assert (
        items["#0"].question == "What?" and items["#0"].regions[0].label == "region 0" and items["#1"].question is None
    )
    with pytest.raises(InputError, match=r"columns may name image, id, .*, not 'picture'"):
        read("jsonl", path, columns={"picture": "file"})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", r"line 2 of .*rows\.jsonl is not JSON"),
        ({}, "lacks 'image'"),
        ([1, 2], "a row is a list where names with values are due"),
        ({"image": "gone.png"}, r"gone\.png is missing"),
        ({"image": ""}, "image is empty"),
        ({"image": 3}, "image is a int where a path"),
        ({"image": "https://example.org/a.png"}, "is on the web: download it"),
        ({"image": "one.png", "question": 4}, "question is a int where a text is due"),
        ({"image": "one.png", "answer": ["cat"]}, "answer is a list where a text is due"),
        ({"image": "one.png", "references": ["cat", 4]}, "a reference is a int where a text is due"),
        ({"image": "one.png", "answer_ids": ["x"]}, "answer_ids holds 'x', which is no token id"),
        ({"image": "one.png", "answer_ids": [1.7]}, "answer_ids holds 1.7, which is no token id"),
        ({"image": "one.png", "answer_ids": 5}, "answer_ids is a int where a list is due"),
        ({"image": "one.png", "boxes": [[0, 0, 2, 2]], "labels": "a"}, "labels is a str where a list is due"),
        ({"image": "one.png", "masks": "m"}, "masks is a str where a list is due"),
        ({"image": "one.png", "boxes": [[0, 0, 2]]}, "is broken"),
        ({"image": "one.png", "boxes": [[2, 0, 2, 4]]}, r"\[2, 0, 2, 4\] is no box"),
        ({"image": "one.png", "boxes": [[0, 0, 2, 2]], "labels": ["a", "b"]}, "equally many"),
        ({"image": "one.png", "labels": ["a"]}, "equally many"),
        ({"image": "one.png", "masks": ["gone.png"]}, r"gone\.png is missing"),
        ({"image": "one.png", "masks": [[[1, 2]]]}, "region 'region 0' cannot be drawn: a polygon"),
        ({"image": "one.png", "answer": "cat", "phrases": [[0, 4]]}, r"phrase \[0, 4\] lies outside of the answer"),
        ({"image": "one.png", "answer": "cat", "phrases": [[0, 3, [0]]]}, "names no region"),
    ],
)
def test_a_broken_row_costs_itself(tmp_path, row, message):
    picture(tmp_path / "one.png")
    path = lines(tmp_path / "rows.jsonl", {"image": "one.png", "id": "whole"}, row)
    assert list(whole_but(read("jsonl", path), {"#1": message})) == ["whole"]


def test_a_reference_may_be_a_text_and_an_id_be_missing(tmp_path):
    picture(tmp_path / "one.png")
    path = lines(tmp_path / "rows.jsonl", {"image": "one.png", "references": "yes", "id": None}, {"image": "one.png"})
    items = whole_but(read("jsonl", path), {})
    assert items["#0"].references == ("yes",) and items["#1"].references == ()


def test_pictures_in_rows(tmp_path):
    columns = rows.checked("d", None)
    held = Image.new("RGB", (3, 2))
    for value in (png(), {"bytes": png(), "path": None}, {"bytes": None, "path": "one.png"}, held):
        picture(tmp_path / "one.png")
        item = rows.item(columns, tmp_path, "a", {"image": value}).checked()
        assert item.error is None
    assert rows.item(columns, tmp_path, "a", {"image": held}).image is held
    assert "the picture of item 'a' is not an image" in str(
        rows.item(columns, tmp_path, "a", {"image": b"?"}).checked().error
    )


@pytest.fixture
def table(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pictures = [png(), b"torn", png(4, 5), png(), None]
    content = {"id": ["a", "b", "c", "d", "e"], "image": pictures, "question": [f"{index}?" for index in range(5)]}
    parquet.write_table(arrow.table(content), tmp_path / "rows.parquet", row_group_size=2)
    return tmp_path / "rows.parquet"


def test_parquet_is_read_by_groups_of_rows(table):
    data = read("parquet", table)
    assert data.ids == list("abcde")
    items = whole_but(data, {"b": "picture of item 'b' is not an image", "e": "image is empty"})
    assert items["c"].question == "2?" and items["c"].image.size == (5, 4)
    assert [data[index].question for index in (3, 0, 2)] == ["3?", "0?", "2?"]


def test_a_damaged_group_costs_its_own_rows(table):
    content = bytearray(table.read_bytes())
    parquet = pytest.importorskip("pyarrow.parquet")
    column = parquet.ParquetFile(table).metadata.row_group(1).column(2)
    start = column.dictionary_page_offset or column.data_page_offset
    content[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    table.write_bytes(content)
    broken = dict.fromkeys("cd", "parquet: the record of item '.' is broken") | {"b": "not an image", "e": "is empty"}
    assert list(whole_but(read("parquet", table), broken)) == ["a"]


def test_parquet_that_is_none_is_refused(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "rows.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"rows\.parquet cannot be read as Parquet"):
        read("parquet", tmp_path / "rows.parquet")
    with pytest.raises(InputError, match=r"parquet: missing .*gone\.parquet"):
        read("parquet", tmp_path / "gone.parquet")


@pytest.fixture
def hub():
    datasets = pytest.importorskip("datasets")
    content = {
        "img": [{"bytes": one, "path": None} for one in (png(), b"torn", png(4, 5))],
        "query": ["a?", "b?", "c?"],
    }
    features = datasets.Features({"img": datasets.Image(), "query": datasets.Value("string")})
    return datasets.Dataset.from_dict(content, features=features)


COLUMNS = {"image": "img", "question": "query"}


def test_a_table_of_the_datasets_library(hub, tmp_path):
    datasets = pytest.importorskip("datasets")
    hub.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"val": hub}).save_to_disk(tmp_path / "split")
    for root, split in ((hub, "test"), (str(tmp_path / "one"), "test"), (tmp_path / "split", "val")):
        items = whole_but(read("datasets", root, columns=COLUMNS, split=split), {"#1": "not an image"})
        assert read("datasets", root, columns={**COLUMNS, "id": "query"}, split=split).ids == ["a?", "b?", "c?"]
        assert items["#2"].question == "c?" and items["#2"].image.size == (5, 4)


def test_tables_in_memory_are_told_apart(hub):
    one, other = (read("datasets", each, columns=COLUMNS) for each in (hub, hub.select([1, 2])))
    assert one.source == read("datasets", hub, columns=COLUMNS).source != other.source


def test_what_the_datasets_library_cannot_give_is_named(hub, tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.DatasetDict({"val": hub}).save_to_disk(tmp_path / "split")
    with pytest.raises(InputError, match="split must be one of val, not 'test'"):
        read("datasets", tmp_path / "split", columns=COLUMNS)
    with pytest.raises(InputError, match="there is no column 'image', but img, query"):
        read("datasets", hub)
    with pytest.raises(InputError, match="there is no column 'ask', but img, query"):
        read("datasets", hub, columns={"image": "img", "question": "ask"})
    with pytest.raises(InputError, match="a IterableDataset has no rows by index"):
        read("datasets", hub.to_iterable_dataset(), columns=COLUMNS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty cannot be opened"):
        read("datasets", tmp_path / "empty")


@pytest.mark.parametrize(
    ("name", "module", "package"), [("datasets", "datasets", "datasets"), ("parquet", "pyarrow.parquet", "pyarrow")]
)
def test_a_library_that_is_missing_is_named_with_how_to_install_it(tmp_path, monkeypatch, name, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "rows.parquet").write_bytes(b"")
    with pytest.raises(LibraryError, match=re.escape(f"pip install {package}")):
        read(name, tmp_path / "rows.parquet")


def test_the_names_of_data_sets():
    assert names() == sorted(names()) and {"voc", "eagle", "shapes", "datasets"} <= set(names())

"""The table of a job: each column against the explanation that it came from."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from command_line import explanation

from dexar_fast.errors import FileError
from dexar_fast.jobs.finished import table
from dexar_fast.vision.grid import Grid

TOLD = {"item": "a", "image": None, "prompt": "What?", "file": "_explanations/00000000.safetensors", "error": None}


def test_columns_are_those_of_the_schema() -> None:
    found = explanation(token_maps=torch.arange(8.0).view(2, 4))
    found.visual_scores[0, 1, 2] = 7
    columns = table.rows(TOLD, found)
    assert list(columns) == table.schema().names == list(table.COLUMNS)
    assert columns["token"] == found.tokens and columns["token_index"] == [0, 1] and columns["token_id"] == [0, 1]
    assert columns["weight"] == [0.5, 0.25] and columns["score"] == [6.0, 0.0]
    assert [values.tolist() for values in columns["map"]] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert columns["height"] == columns["width"] == [2, 2] and columns["item"] == ["a", "a"]


def test_cells_are_in_the_order_of_the_grid() -> None:
    found = explanation(token_maps=torch.arange(8.0).view(2, 4), grids=False)
    turned = explanation(token_maps=found.token_maps, **{"grids": True})
    turned = type(turned)(**vars(turned) | {"grids": (Grid(0, 1, 2, 1, row_stride=2),)})
    assert [values.tolist() for values in table.rows(TOLD, turned)["map"]] == [[1, 3], [5, 7]]
    assert table.rows(TOLD, turned)["height"] == [2, 2] and table.rows(TOLD, turned)["width"] == [1, 1]
    plain = table.rows(TOLD, found)
    assert plain["height"] == plain["width"] == [None, None] and plain["map"][1].tolist() == [4, 5, 6, 7]


def test_a_method_without_heads_and_weights() -> None:
    none = torch.zeros(2, 0, 0)
    found = explanation(
        visual_scores=none, text_scores=none, head_weights=none, diagnostics={"weighted": False, "warnings": []}
    )
    columns = table.rows(TOLD, found)
    assert columns["weight"] == columns["score"] == [None, None]


def test_an_item_that_failed_is_a_row() -> None:
    columns = table.rows(TOLD | {"error": "gone", "file": None, "item": "\udcff"}, None)
    filled = {name: values for name, values in columns.items() if values != [None]}
    assert filled == {"item": ["\\udcff"], "prompt": ["What?"], "error": ["gone"]}


def test_pandas_reads_it_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "_finished").mkdir()
    (tmp_path / "_finished" / "0-of-1.jsonl").write_text("{}\n")
    several = [table.rows(TOLD | {"item": str(index)}, explanation()) for index in range(table.ITEMS + 3)]
    table.write(tmp_path / "tokens.parquet", iter(several))
    found = pd.read_parquet(tmp_path)
    assert found["item"].tolist() == [str(index // 2) for index in range(2 * len(several))]
    assert np.array_equal(np.stack(found["map"]), np.concatenate([one["map"] for one in several]))
    assert pq.ParquetFile(tmp_path / "tokens.parquet").num_row_groups == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_finished", "tokens.parquet"]


def test_a_table_that_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "tokens.parquet"
    path.write_text("earlier")

    def failing():
        yield table.rows(TOLD, explanation())
        raise OSError(28, "No space left on device")

    with pytest.raises(FileError, match=r"cannot write .*tokens\.parquet: No space left on device"):
        table.write(path, failing())
    assert path.read_text() == "earlier" and len(list(tmp_path.iterdir())) == 1

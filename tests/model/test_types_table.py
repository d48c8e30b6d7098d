"""A third of the rows of TYPES.md, another third each day; and that the page has a row for every type."""

from __future__ import annotations

import datetime
import warnings
from zlib import crc32

import pytest
import torch
import transformers
import types_cases
import types_table
from types_cases import TYPES

VERSION = f"transformers {transformers.__version__}"
THIRDS = 3
TODAY = datetime.datetime.now(datetime.UTC).toordinal() % THIRDS
BOUND = 1e-4  # of those that compute a part in float32; the others are held to rounding by tests/model
CHOSEN = sorted(name for name in types_cases.known() if crc32(name.encode()) % THIRDS == TODAY)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", CHOSEN)
def test_a_row_of_the_table(model_type: str) -> None:
    torch.set_num_threads(1)
    row = types_table.row(model_type)
    line = types_table.line(row)
    written = types_table.PAGE.read_text(encoding="utf-8")
    assert f"| {model_type} | `{row.model_class}` | {row.status} |" in written, f"the page is old: make types\n{line}"
    assert row.status == types_table.REFUSED or all(float(each) <= BOUND for each in row.errors)


def test_the_page_has_a_row_for_every_type() -> None:
    """What a later transformers brings is told, and tried by `make types`."""
    written = types_table.PAGE.read_text(encoding="utf-8")
    new = [name for name in TYPES if f"| {name} |" not in written]
    if new:
        warnings.warn(f"{VERSION} has types that are untested: {', '.join(new)}", stacklevel=1)
    assert not new or VERSION not in written

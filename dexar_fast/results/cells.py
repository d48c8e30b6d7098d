"""Grids and regions as rows of a JSON document; the labels of regions are arrays beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from dexar_fast.vision.grid import Grid
from dexar_fast.vision.regions import Cells, Regions


def rows_of(cells: Sequence[Cells]) -> list[dict[str, Any]]:
    """A row for each; of regions it names the array of their labels, which `labels_of` gives."""
    return [asdict(each) if isinstance(each, Grid) else _row(each, i) for i, each in enumerate(cells)]


def _row(regions: Regions, place: int) -> dict[str, Any]:
    return {"image": regions.image, "start": regions.start, "labels": _name(place), "video": regions.video}


def labels_of(cells: Sequence[Cells]) -> dict[str, Tensor]:
    """The labels [height, width] of all regions, by the names that their rows hold; bytes where these suffice."""
    return {
        _name(i): _small(torch.from_numpy(each.labels)) for i, each in enumerate(cells) if isinstance(each, Regions)
    }


def names_in(rows: Sequence[dict[str, Any]]) -> set[str]:
    """The arrays that rows name."""
    return {row["labels"] for row in rows if "labels" in row}


def cells_of(rows: Sequence[dict[str, Any]], array: Callable[[str], Tensor]) -> tuple[Cells, ...]:
    """The grids and regions of rows; `array` gives what they name."""
    return tuple(_regions(row, array) if "labels" in row else _grid(row) for row in rows)


def _regions(row: dict[str, Any], array: Callable[[str], Tensor]) -> Regions:
    """Files from before regions knew of videos say nothing of them."""
    return Regions(row["image"], row["start"], array(row["labels"]).int().numpy(), row.get("video", False))


def _small(labels: Tensor) -> Tensor:
    return labels.to(torch.uint8) if int(labels.max()) <= torch.iinfo(torch.uint8).max else labels


def _grid(row: dict[str, Any]) -> Grid:
    return Grid(**row | {"box": tuple(row["box"]) if row["box"] is not None else None})


def _name(index: int) -> str:
    return f"regions_{index}"

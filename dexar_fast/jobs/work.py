"""The work of a job on one lot, in any process that sees the folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dexar_fast.data import DataSet, Item
from dexar_fast.errors import reason
from dexar_fast.explanation import Explanation
from dexar_fast.jobs.asked import Asked, Read
from dexar_fast.jobs.explaining import Found, explained
from dexar_fast.jobs.finished.folder import Folder
from dexar_fast.jobs.finished.merging import INDEX

if TYPE_CHECKING:
    from dexar_fast.explainer import Explainer

Records = dict[str, dict[str, Any]]  # of items, by their ids: plain JSON


@dataclass(frozen=True)
class Work:
    """Explains items of `data` into `folder`; it pickles if the data set does."""

    data: DataSet
    folder: Folder
    asked: Asked
    pictures: bool

    def read(self, lot: Sequence[int]) -> list[Read]:
        """The items of a lot, with their pictures."""
        return [self.asked.read(self.data[index]) for index in lot]

    def finish(self, explainer: Explainer, lot: Sequence[int], read: Sequence[Read]) -> Records:
        """Writes the results of a lot that was read; returns what the ledger and the table need of them.

        Raises FileError: the disk is full or gone.
        """
        found = explained(explainer, read, self.asked, seed=lot[0])
        for index, one in zip(lot, found, strict=True):
            if isinstance(one, Explanation):
                self.folder.write(index, one, self.pictures)
        each = zip(lot, read, found, strict=True)
        return {item.id: {INDEX: index, **told(self.asked, item, one)} for index, (item, _), one in each}


def told(asked: Asked, item: Item, found: Found) -> dict[str, str | None]:
    """What the table says of an item beside its tokens."""
    image = str(item.picture) if isinstance(item.picture, Path) else None
    error = None if isinstance(found, Explanation) else reason(found)
    return {"image": image, "prompt": asked.text_or_none(item), "error": error}

"""A job: every item of a data set explained, and kept as soon as it is."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from dexar_fast import __version__
from dexar_fast.data import DataSet, Item
from dexar_fast.errors import InputError, reason
from dexar_fast.explanation import Explanation
from dexar_fast.jobs import ledger, table
from dexar_fast.jobs.asked import Asked
from dexar_fast.jobs.explaining import Found, explained
from dexar_fast.jobs.folder import Folder
from dexar_fast.jobs.ledger import Ledger
from dexar_fast.jobs.lots import lots
from dexar_fast.jobs.merging import COUNT, INDEX
from dexar_fast.jobs.share import Share

if TYPE_CHECKING:
    from dexar_fast.explainer import Explainer

LOT = 16  # items
ALL = Share()


class Job:
    """Explains a data set into a folder (`dexar_fast.jobs.folder.Folder`), going on from what is finished there.

    with Job(read("folder", "photos"), "out", Asked("What is it?")) as job:
        for name, error in job.run(Explainer.from_pretrained()): ...
    merge("out")

    Args:
        data: the items; `count` takes only so many.
        out: the folder; made if it does not exist.
        asked: the prompt, and how it is answered.
        by: plain JSON that says which model and method explain: other ones may not go on with the folder.
        alone: one item at a time: methods that run no batches.
        pictures: also write each answer's map over its picture.
        share: of this worker.
    Raises:
        InputError: no item, or the folder was begun with other settings or data; the message names them.
        FileError: another process works on the same share, or the folder cannot be written.
        LibraryError: pyarrow is not installed.
    """

    def __init__(
        self,
        data: DataSet,
        out: str | os.PathLike[str],
        asked: Asked,
        by: Mapping[str, Any],
        *,
        count: int | None = None,
        alone: bool = False,
        pictures: bool = False,
        share: Share = ALL,
    ) -> None:
        self._data, self._asked, self._pictures = data, asked, pictures
        self._ids = data.ids[:count]
        if not self._ids:
            raise InputError(f"{data.name}: there is no item to explain")
        table.arrow()
        self.folder = Folder(Path(out))
        self.folder.make(pictures)
        self._ledger = Ledger(self.folder.ledger(share.rank, share.world), self._settings(by))
        self._finished = {name for path in self.folder.ledgers() for name in self._records(path)}
        size = 1 if alone or asked.batch_size == 1 else asked.batch_size or LOT
        every = lots((data[index] for index in range(len(self._ids))), size)
        self._lots = [lot for lot in every[share.rank :: share.world] if self._left_of(lot)]
        self.items = sum(map(len, every[share.rank :: share.world]))

    def _settings(self, by: Mapping[str, Any]) -> dict[str, Any]:
        ids = hashlib.sha256("\0".join(self._ids).encode("utf-8", "surrogatepass")).hexdigest()[:16]
        asked = {"prompt": self._asked.prompt, "written": self._asked.written, "batch_size": self._asked.batch_size}
        data = {"data": self._data.name, COUNT: len(self._ids), "ids": ids}
        more = {"generate": dict(self._asked.arguments), "pictures": self._pictures, "dexar_fast": __version__}
        return data | asked | more | dict(by)

    def _records(self, path: Path) -> dict[str, Any]:
        """What a worker has finished. Raises InputError: of another job."""
        begun, records = ledger.read(path)
        ledger.compare(path, begun, self._ledger.asked)
        return records

    @property
    def left(self) -> int:
        """How many items this worker has not finished, of `items`."""
        return sum(len(self._left_of(lot)) for lot in self._lots)

    def _left_of(self, lot: Sequence[int]) -> list[int]:
        return [index for index in lot if self._ids[index] not in self._finished]

    def run(self, explainer: Explainer) -> Iterator[tuple[str, str | None]]:
        """Explains what is left. Each item's id and its error are given once its results are on the disk.

        Raises FileError: the disk is full or gone.
        """
        for lot in self._lots:
            items = [self._data[index] for index in lot]
            yield from self.keep(lot, items, explained(explainer, items, self._asked, seed=lot[0]))

    def keep(
        self, lot: Sequence[int], items: Sequence[Item], found: Sequence[Found]
    ) -> Iterator[tuple[str, str | None]]:
        """Writes what was found of a lot, as far as it is not on the disk."""
        left = set(self._left_of(lot))
        new = [each for each in zip(lot, items, found, strict=True) if each[0] in left]
        for index, _, one in new:
            if isinstance(one, Explanation):
                self.folder.write(index, one, self._pictures)
        records = {item.id: self._record(index, item, one) for index, item, one in new}
        self._ledger.add(records)
        self._finished.update(records)
        yield from ((name, record["error"]) for name, record in records.items())

    def _record(self, index: int, item: Item, found: Found) -> dict[str, Any]:
        image = str(item.picture) if isinstance(item.picture, Path) else None
        error = None if isinstance(found, Explanation) else reason(found)
        return {INDEX: index, "image": image, "prompt": _prompt(self._asked, item), "error": error}

    def close(self) -> None:
        """Frees the share for another process."""
        self._ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _prompt(asked: Asked, item: Item) -> str | None:
    try:
        return asked.text(item)
    except InputError:
        return None

"""A job: every item of a data set explained, and kept as soon as it is."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from dexar_fast import __version__
from dexar_fast.data import DataSet
from dexar_fast.errors import InputError
from dexar_fast.jobs.ahead import ahead
from dexar_fast.jobs.asked import Asked
from dexar_fast.jobs.finished import merging, table
from dexar_fast.jobs.finished.folder import Folder
from dexar_fast.jobs.finished.ledger import CONTENT, Ledger
from dexar_fast.jobs.finished.merging import COUNT
from dexar_fast.jobs.lots import lots
from dexar_fast.jobs.share import ALL, Share
from dexar_fast.jobs.work import Records, Work

if TYPE_CHECKING:
    from dexar_fast.explainer import Explainer

LOT = 16  # items
Told = tuple[str, str | None]  # an item's id and its error


class Job:
    """Explains a data set into a folder (`jobs.finished.folder.Folder`), going on from what is finished there.

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
        retry: explain again what failed, and what has lost the file of its explanation.
    Attributes:
        work: what explains a lot, in this process or in another.
        lots: what this worker has left. items: how many items it has in all.

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
        retry: bool = False,
    ) -> None:
        self._ids = data.ids[:count]
        if not self._ids:
            raise InputError(f"{data.name}: there is no item to explain")
        table.arrow()
        folder = Folder(Path(out))
        folder.make(pictures)
        self.work = Work(data, folder, asked, pictures)
        settings = self._settings(by)
        merging.compared(folder, settings)  # before a ledger of other settings lies in the folder
        size = 1 if alone or asked.batch_size == 1 else asked.batch_size or LOT
        mine = lots((data[index] for index in range(len(self._ids))), size)[share.rank :: share.world]
        self._ledger = Ledger(folder.ledger(share.rank, share.world), settings)
        found = merging.compared(folder, settings)
        self._finished = {name for name, record in found.items() if not (retry and merging.is_lost(folder, record))}
        self.lots = [lot for lot in mine if self._left_of(lot)]
        self.items = sum(map(len, mine))

    def _settings(self, by: Mapping[str, Any]) -> dict[str, Any]:
        ids = hashlib.sha256("\0".join(self._ids).encode("utf-8", "surrogatepass")).hexdigest()[:16]
        work, asked = self.work, self.work.asked
        data = {"data": work.data.source, COUNT: len(self._ids), "ids": ids}
        data[CONTENT] = work.data.content(range(len(self._ids)))
        how = {"prompt": asked.prompt, "written": asked.written, "batch_size": asked.batch_size}
        more = {"generate": dict(asked.arguments), "pictures": work.pictures, "dexar_fast": __version__}
        return data | how | more | dict(by)

    @property
    def left(self) -> int:
        """How many items this worker has not finished, of `items`."""
        return sum(len(self._left_of(lot)) for lot in self.lots)

    def _left_of(self, lot: Sequence[int]) -> list[int]:
        return [index for index in lot if self._ids[index] not in self._finished]

    def run(self, explainer: Explainer) -> Iterator[Told]:
        """Explains what is left. Each item's id and its error are given once its results are on the disk.

        Raises FileError: the disk is full or gone.
        """
        for lot, read in ahead(self.work.read, self.lots):
            yield from self.add(self.work.finish(explainer, lot, read))

    def add(self, records: Records) -> Iterator[Told]:
        """Takes what is finished of a lot into the ledger."""
        new = {name: record for name, record in records.items() if name not in self._finished}
        self._ledger.add(new, again=True)
        self._finished.update(new)
        yield from ((name, record["error"]) for name, record in new.items())

    def close(self) -> None:
        """Frees the share for another process."""
        self._ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

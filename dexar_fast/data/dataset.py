"""A data set: items by index, each made when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

from dexar_fast.data.content import nothing, of_records
from dexar_fast.data.item import Item
from dexar_fast.errors import InputError, reason


class DataSet(Sequence[Item]):
    """A sequence of items over the records of a data set. It pickles if its records and functions do.

    A record from which no item can be made gives an item with its `error`; the others stay as they are. `ids` opens no
    picture, so that finished items can be skipped and items be shared out before anything is read.

    Attributes:
        source: which data these are, as a text: what `dexar_fast.data.read` was asked for, or else `name`.
    """

    def __init__(
        self,
        name: str,
        records: Sequence[Any],
        make: Callable[[str, Any], Item],
        name_of: Callable[[Any], object],
        beside: Callable[[Sequence[int]], str] = nothing,
    ):
        """`make(id, record)` makes an item, `name_of(record)` its id; a record may be the error that stands for it.

        `beside(indices)` tells apart, as a text, what the items at these indices are made from beside their records:
        it is due wherever `make` reads another file, or rows of which the records hold the index alone. It is called
        by `content`, when a job begins, not while items are made.
        """
        self.name = self.source = name
        self._records, self._make, self._beside = records, make, beside
        self.ids = _distinct([_id(record, index, name_of) for index, record in enumerate(records)])

    def content(self, indices: Sequence[int] | None = None) -> str:
        """16 hexadecimal digits of what some items, or all, are made from: others for other rows of the same names.

        Pictures count by their paths, if they have any: none is opened.
        """
        chosen = range(len(self)) if indices is None else indices
        return of_records((self._records[index] for index in chosen), self._beside(chosen))

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [self[one] for one in range(len(self))[index]]
        name = self.ids[index]
        try:
            return self._make(name, _usable(self._records[index]))
        except InputError as error:
            return Item(name, error=error)
        except KeyError as error:
            return Item(name, error=InputError(f"{self.name}: the record of item {name!r} lacks {error}"))
        except Exception as error:  # a record may hold anything
            return Item(name, error=InputError(f"{self.name}: the record of item {name!r} is broken: {reason(error)}"))


def _usable(record: Any) -> Any:
    if isinstance(record, InputError):
        raise record
    return record


def _id(record: Any, index: int, name_of: Callable[[Any], object]) -> str:
    try:
        return str(name_of(_usable(record)))
    except Exception:  # see __getitem__, which says what is wrong with the record
        return f"#{index}"


def _distinct(ids: list[str]) -> list[str]:
    """The ids; one that came before gets its index."""
    seen: set[str] = set()
    found = []
    for index, name in enumerate(ids):
        while name in seen:
            name += f"#{index}"
        found.append(name)
        seen.add(name)
    return found

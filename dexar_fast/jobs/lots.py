"""Items in lots: what is explained at once, by one worker, and again as a whole if a kill came between.

Lots depend on the data alone, not on what is finished or on how many work: so each result is the same to the bit.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from functools import partial
from typing import Any

from dexar_fast.data import Item


def picture_of(item: Item) -> Hashable:
    """Equal for items that share a picture, as far as that can be told without opening it."""
    picture: Any = item.picture
    key = (picture.func, picture.args) if isinstance(picture, partial) else picture
    try:
        hash(key)
    except TypeError:
        key = None
    return ("of its own", item.id) if key is None else key


def lots(items: Iterable[Item], size: int) -> list[list[int]]:
    """The indices of items in lots of at most `size`, or those of one picture if they are more.

    The items of a picture are in one lot. Lots are in the order of their first items.
    """
    found: list[list[int]] = []
    for group in _groups(items):
        if not found or len(found[-1]) + len(group) > size:
            found.append([])
        found[-1] += group
    return found


def _groups(items: Iterable[Item]) -> list[list[int]]:
    """The indices of each picture's items. Only hashes are kept: a picture may be all bytes of a file."""
    groups: dict[int, list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(hash(picture_of(item)), []).append(index)
    return list(groups.values())

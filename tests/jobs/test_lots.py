"""Lots: every item in one, those of a picture together, the same whatever is finished."""

from functools import partial
from pathlib import Path

import pytest

from dexar_fast.data import Item, read
from dexar_fast.data.pictures import decoded
from dexar_fast.errors import InputError
from dexar_fast.jobs.lots import lots, picture_of
from dexar_fast.jobs.share import Share, share


def items(pictures: str) -> list[Item]:
    return [Item(str(index), Path(name)) for index, name in enumerate(pictures)]


@pytest.mark.parametrize(
    ("pictures", "size", "expected"),
    [
        ("abcde", 2, [[0, 1], [2, 3], [4]]),
        ("abcabc", 1, [[0, 3], [1, 4], [2, 5]]),
        ("aabbb", 4, [[0, 1], [2, 3, 4]]),
        ("abbbbbc", 3, [[0], [1, 2, 3, 4, 5], [6]]),
        ("", 3, []),
    ],
)
def test_lots_by_hand(pictures: str, size: int, expected: list[list[int]]) -> None:
    assert lots(items(pictures), size) == expected


def test_pictures_of_all_kinds() -> None:
    drawn = [item.picture.args for item in read("shapes", count=2)]  # type: ignore[union-attr]
    assert lots(read("shapes", count=2), 1) == [
        [index for index, args in enumerate(drawn) if args == each] for each in dict.fromkeys(drawn)
    ]
    of_bytes = [Item("a", partial(decoded, b"1")), Item("b", partial(decoded, b"2")), Item("c", partial(decoded, b"1"))]
    assert lots(of_bytes, 1) == [[0, 2], [1]]
    unhashable = [Item(name, partial(decoded, bytearray(b"1"))) for name in "ab"]  # type: ignore[arg-type]
    broken = [Item(name, error=InputError("gone")) for name in "cd"]
    assert lots([*unhashable, *broken], 1) == [[0], [1], [2], [3]]
    assert picture_of(items("a")[0]) == picture_of(items("a")[0])


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Share(0, 1)),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, Share(3, 8, 1)),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "4", "SLURM_LOCALID": "2"}, Share(2, 4, 2)),
        ({"RANK": "0", "WORLD_SIZE": "2", "SLURM_PROCID": "2", "SLURM_NTASKS": "4"}, Share(0, 2, 0)),
        ({"RANK": "1"}, Share(0, 1)),
    ],
)
def test_the_share_that_a_launcher_gives(environ: dict[str, str], expected: Share) -> None:
    assert share(environ=environ) == expected
    assert share(1, 3, environ) == Share(1, 3, 1)


def test_shares_that_are_none() -> None:
    with pytest.raises(InputError, match="rank and world go together"):
        share(1)
    with pytest.raises(InputError, match="from 0 to 1, one less than the world, not 2"):
        share(2, 2)
    with pytest.raises(InputError, match="RANK is 'x' where a number is due"):
        share(environ={"RANK": "x", "WORLD_SIZE": "2"})

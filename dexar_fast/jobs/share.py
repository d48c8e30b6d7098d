"""Which part of a job is this process's: rank and world from torchrun, accelerate, Slurm or the user."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from dexar_fast.errors import InputError

# of torchrun and accelerate; of Slurm: rank, world, rank on this machine
_LAUNCHERS = (("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"))


@dataclass(frozen=True)
class Share:
    """The lots of a job that worker `rank` of `world` explains, of which `local` counts those on its machine."""

    rank: int = 0
    world: int = 1
    local: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise InputError(
                f"the rank is a number from 0 to {self.world - 1}, one less than the world, not {self.rank}"
            )


ALL = Share()


def share(rank: int | None = None, world: int | None = None, environ: Mapping[str, str] = os.environ) -> Share:
    """This process's share: as given, or as its launcher says, or all of it. Raises InputError."""
    if (rank is None) != (world is None):
        raise InputError("rank and world go together: which worker this is, from 0 on, and how many there are")
    if rank is not None and world is not None:
        return Share(rank, world, rank)
    for names in _LAUNCHERS:
        if names[0] in environ and names[1] in environ:
            return Share(*(_number(name, environ.get(name, "0")) for name in names))
    return ALL


def _number(name: str, text: str) -> int:
    if not text.isdecimal():
        raise InputError(f"the environment variable {name} is {text!r} where a number is due")
    return int(text)

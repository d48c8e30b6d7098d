"""DEX-AR, the method of the engine itself: the pass explains an answer while it runs (METHOD.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dexar_fast.settings import Settings


@dataclass(frozen=True)
class DexAr(Settings):
    """DEX-AR (arXiv 2603.06302). Its knobs are those of `dexar_fast.settings.Settings`."""

    contrasts: ClassVar[bool] = True

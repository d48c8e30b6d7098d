"""torch-cam: its DEXAR is in no release, so its example's loop stands here re-implemented."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from bench.adapters.tool import Common, Row, Tool
from bench.rival_methods import cached
from dexar_fast.adapters.torchcam import DEXAR


def rows(common: Common) -> Sequence[Row]:
    found = common.subject()
    return [
        Row(
            "DEXAR of an answer",
            partial(DEXAR(found.model), found.inputs, found.targets[None]),
            partial(cached, found),
            "the same maps; its loop: token by token over a KV cache, a backward for each layer",
        )
    ]


TOOL = Tool("torch-cam", None, rows)

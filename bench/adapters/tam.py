"""TAM: a repository and no package, so its formula stands here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bench import tam_formula
from bench.adapters.tool import Common, Row, Tool
from bench.methods import asked, head_rows
from bench.subjects import Subject
from dexar_fast.adapters.tam import TAM


def rows(common: Common) -> Sequence[Row]:
    found = common.subject()
    with asked(found) as request:
        normed = head_rows(request)
    return [
        Row(
            "all rounds of an answer",
            lambda: _rounds(found, normed),
            lambda: tam_formula.maps(found, normed, tam_formula.one_by_one),
            "from the last hidden states: the logits of all positions, then each word's map; its minimiser and filter",
        )
    ]


@torch.no_grad()
def _rounds(found: Subject, normed: Tensor) -> list[Any]:
    logits, prompt = found.model.lm_head(normed), found.prompt
    rounds = [logits[:, :prompt], *logits[:, prompt:].split(1, 1)]
    ids, image = found.inputs["input_ids"][0].tolist(), found.model.config.image_token_id
    special = {"img_id": [image], "prompt_id": [[image], ids[-1:]], "answer_id": [ids[-1:], -1]}
    tokens, side, records = [*ids, *found.targets.tolist()], round(len(found.visual) ** 0.5), []
    return [TAM(tokens, (side, side), rounds, special, None, None, "", n, records) for n in range(len(found.targets))]


TOOL = Tool("TAM", None, rows)

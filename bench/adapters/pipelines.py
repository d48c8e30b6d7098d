"""transformers: what an explanation adds to an answer that a pipeline writes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from transformers import pipeline

from bench.adapters.tool import Common, Row, Tool
from dexar_fast import Explainer

TOKENS = 16


def rows(common: Common) -> Sequence[Row]:
    model, processor = common.explainer.model, common.explainer.processor
    pipe = pipeline("image-text-to-text", model=model, processor=processor)
    prompt = f"USER: <image>\n{common.prompt} ASSISTANT:"
    theirs = partial(pipe, images=common.picture, text=prompt, max_new_tokens=TOKENS)
    ours = partial(Explainer(pipe).explain, common.picture, prompt, max_new_tokens=TOKENS)
    return [Row("a written answer", ours, theirs, "the answer and its maps beside the answer alone")]


TOOL = Tool("transformers' pipeline", "transformers", rows)

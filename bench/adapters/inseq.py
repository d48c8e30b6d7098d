"""Inseq: gradients of a model of text alone, the decoder of the embedded one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from transformers import LlamaForCausalLM

from bench.adapters.tool import Common, Row, Tool
from dexar_fast.adapters.inseq import attribute


def rows(common: Common) -> Sequence[Row]:
    import inseq

    model, tokenizer = _decoder(common), common.explainer.processor.tokenizer
    theirs = inseq.load_model(model, "saliency", tokenizer=tokenizer)
    texts = common.prompt, common.prompt + common.answer
    return [
        Row(
            "saliency of each token, text alone",
            partial(attribute, model, tokenizer, *texts),
            partial(theirs.attribute, *texts, show_progress=False),
            "one forward and backward a token, at the embeddings; ours one pass, at the attention of every layer",
        )
    ]


def _decoder(common: Common) -> LlamaForCausalLM:
    """The embedded model without its eyes."""
    whole = common.explainer.model
    decoder = LlamaForCausalLM(whole.config.text_config).eval()
    decoder.model.load_state_dict(whole.model.language_model.state_dict())
    decoder.lm_head.load_state_dict(whole.lm_head.state_dict())
    return decoder


TOOL = Tool("Inseq", "inseq", rows)

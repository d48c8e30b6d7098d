"""Inseq's FeatureAttributionOutput from an Explanation, and from DEX-AR's gradients of a model of text alone.

    attribution_output(explanation).show()
    attribute(model, tokenizer, "The cat", "The cat sat").aggregate()     # was: inseq.load_model(...).attribute(...)

Inseq runs no model here: show, save, load, aggregate and get_scores_dicts are its own (Inseq 0.7).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dexar_fast.data.libraries import library
from dexar_fast.errors import InputError
from dexar_fast.explanation import Explanation
from dexar_fast.lowlevel import gradients, score_layer

if TYPE_CHECKING:
    from inseq import FeatureAttributionOutput

OF_TEXT = "dex-ar: unfiltered sum over text keys"
UNKNOWN = -1  # id of a key whose id an explanation does not hold


def attribution_output(explanation: Explanation) -> FeatureAttributionOutput:
    """An explanation as Inseq shows an answer with a source: the picture.

    `source_attributions` [N, T] are its token maps; a source token is named after its place. `target` are the prompt's
    M text keys and the answer, `target_attributions` [M + T, T] the maps of `text_relevance`, NaN where a token cannot
    read. Without text relevance `target` is the answer alone and has none. Ids outside the answer are -1.

    Raises:
        LibraryError: Inseq is not installed.
    """
    answer = list(zip(explanation.tokens, explanation.token_ids.tolist(), strict=True))
    before, rows = _text(explanation)
    settings = explanation.metadata.get("settings", {})
    return _output(
        source=[(place, UNKNOWN) for place in _places(explanation)],
        target=[*((token, UNKNOWN) for token in before), *answer],
        source_attributions=explanation.token_maps.T.contiguous(),
        target_attributions=rows,
        step_scores={"token_weight": explanation.token_weights} if explanation.weighted else {},
        attr_pos_start=len(before),
        info={
            "attribution_method": settings.get("method", "dex-ar"),
            "model_class": explanation.metadata.get("model_class"),
            "model_name": explanation.metadata.get("model"),
            "input_texts": [explanation.metadata.get("question", "")],
            "generated_texts": [explanation.text],
        },
    )


def attribute(
    model: Any,
    tokenizer: Any,
    input_texts: str | Sequence[str],
    generated_texts: str | Sequence[str] | None = None,
    generation_args: Mapping[str, Any] | None = None,
) -> FeatureAttributionOutput:
    """What Inseq's `attribute` returns of a decoder that reads text alone, by DEX-AR's gradients.

    Where there is no image, no head can be filtered by what it finds there, so the scores are the unfiltered sum over
    text keys, sum over layers and heads of G (METHOD.md section 3); `info["attribution_method"]` says so.

    Args:
        model: a decoder of transformers. tokenizer: its own.
        input_texts: one or several. generated_texts: as many, each with its input text before it, as Inseq asks; None
            has the model write them. generation_args: for generate().
    Returns:
        A sequence for each text: `target` [P + T], `target_attributions` [P + T, T], NaN where a token cannot read.
    Raises:
        InputError: texts that do not fit together. LibraryError: Inseq is not installed. Else as `lowlevel.gradients`.
    """
    inputs = [input_texts] if isinstance(input_texts, str) else list(input_texts)
    if not inputs:
        raise InputError("input_texts is empty: give at least one text")
    prompts = [tokenizer(text).input_ids for text in inputs]
    if generated_texts is None:
        written = [_written(model, prompt, generation_args or {}) for prompt in prompts]
    else:
        written = _given(tokenizer, inputs, generated_texts)
    parts = [_of_text(model, tokenizer, len(prompt), ids) for prompt, ids in zip(prompts, written, strict=True)]
    found = parts[0]
    found.sequence_attributions = [part.sequence_attributions[0] for part in parts]
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in written]
    found.info |= {"input_texts": inputs, "generated_texts": texts, "constrained_decoding": generated_texts is not None}
    return found


def _written(model: Any, prompt: list[int], generation_args: Mapping[str, Any]) -> list[int]:
    """The ids of a prompt and of what the model writes behind it."""
    ids = torch.tensor([prompt], device=model.device)
    return model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **generation_args)[0].tolist()


def _given(tokenizer: Any, inputs: list[str], generated_texts: str | Sequence[str]) -> list[list[int]]:
    """The ids of each generated text. Raises InputError unless each begins with its input."""
    given = [generated_texts] if isinstance(generated_texts, str) else list(generated_texts)
    if len(given) != len(inputs):
        raise InputError(f"{len(given)} generated texts for {len(inputs)} input texts: give as many")
    for before, text in zip(inputs, given, strict=True):
        if not text.startswith(before):
            raise InputError(f"the generated text {text!r:.60} does not begin with its input text {before!r:.60}")
    return [tokenizer(text).input_ids for text in given]


def _of_text(model: Any, tokenizer: Any, start: int, ids: list[int]) -> FeatureAttributionOutput:
    """The attribution of the ids behind the first `start`, which Inseq counts by the input text alone."""
    if len(ids) <= start:
        raise InputError(f"the generated text has no token behind the {start} of its input text: there is no answer")
    tokens = list(zip(tokenizer.convert_ids_to_tokens(ids), ids, strict=True))
    info = {
        "attribution_method": OF_TEXT,
        "model_class": type(model).__name__,
        "model_name": model.config.name_or_path,
        "tokenizer_class": type(tokenizer).__name__,
        "tokenizer_name": tokenizer.name_or_path,
    }
    scores = _unfiltered(model, torch.tensor([ids[:start]], device=model.device), ids[start:])
    return _output(target=tokens, target_attributions=scores, source=tokens[:start], attr_pos_start=start, info=info)


def _unfiltered(model: Any, prompt: Tensor, answer: list[int]) -> Tensor:
    """[P + T, T], sum over layers and heads of G; NaN where a token cannot read: the last key is read by none."""
    total = reads = None
    none = torch.zeros(0, dtype=torch.long)
    for layer in gradients(model, {"input_ids": prompt}, answer):
        every = torch.arange(layer.value.shape[1])
        found = score_layer(layer.u, layer.value, every, none, layer.reads).unfiltered_map.cpu()
        read = (layer.reads if layer.reads.ndim == 2 else layer.reads.any(1)).cpu()
        total = found if total is None else total + found
        reads = read if reads is None else reads | read
    assert total is not None and reads is not None  # a decoder has layers
    return torch.nn.functional.pad(total.masked_fill(~reads, torch.nan), (0, 1), value=torch.nan).T.contiguous()


def _text(explanation: Explanation) -> tuple[list[str], Tensor | None]:
    """The M text keys of the prompt, and the relevance [M + T, T] of these and of the answer's tokens."""
    found = explanation.text_relevance
    if found is None:
        return [], None
    prompt, length = int(explanation.metadata["prompt_tokens"]), len(explanation)
    count = int((found.positions < prompt).sum())
    rows = torch.full((count + length, length), torch.nan, dtype=found.maps.dtype)
    rows[:count] = found.maps[:, :count].T
    rows[count + found.positions[count:] - prompt] = found.maps[:, count:].T
    rows[count:].masked_fill_(torch.arange(length)[:, None] >= torch.arange(length), torch.nan)
    return found.tokens[:count], rows


def _places(explanation: Explanation) -> list[str]:
    """A name for each value of a map: its cell, or its number where it has no place."""
    names = [f"visual {n}" for n in range(len(explanation.visual_positions))]
    if explanation.values == "regions":
        return [f"region {n}" for n in range(len(names))]
    for grid in explanation.grids:
        for row, cells in enumerate(grid.cells.tolist()):
            for column, n in enumerate(cells):
                names[n] = f"image {grid.image}, row {row}, column {column}"
    return names


def _output(
    *,
    source: Sequence[tuple[str, int]],
    target: Sequence[tuple[str, int]],
    target_attributions: Tensor | None,
    attr_pos_start: int,
    info: dict[str, Any],
    **more: Any,
) -> FeatureAttributionOutput:
    data = library("inseq.data", "an attribution of Inseq's", "'dexar-fast[inseq]'")
    token = library("inseq.utils.typing", "an attribution of Inseq's", "'dexar-fast[inseq]'").TokenWithId
    sequence = data.attribution.CoarseFeatureAttributionSequenceOutput(
        source=[token(*each) for each in source],
        target=[token(*each) for each in target],
        target_attributions=target_attributions,
        attr_pos_start=attr_pos_start,
        **more,
    )
    common = {
        "attr_pos_start": attr_pos_start,
        "attr_pos_end": len(target),
        "step_scores": [*more.get("step_scores", {})],
    }
    return data.FeatureAttributionOutput(sequence_attributions=[sequence], info=common | info)

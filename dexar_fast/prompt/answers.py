"""Answers as the tools that wrote them hand them over: what generate(), vLLM and SGLang return, as token ids.

They are known by their fields, so none of these is imported: vLLM 0.33's RequestOutput and CompletionOutput, SGLang
0.5.23's dict with "output_ids", transformers' outputs with `sequences`, and the tensor [1, S] without a dict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dexar_fast.errors import InputError
from dexar_fast.model.kinds import DECODER_IDS, IDS, encodes, reads_elsewhere, writer_of
from dexar_fast.prompt.inputs import as_ids, is_visual

ONE = "pass the one that is to be explained"


@dataclass(frozen=True)
class Written:
    """One answer as a tool wrote it."""

    ids: Tensor  # [S] int64
    text: str | None = None  # as the tool decoded it, where it did
    after_prompt: bool = False  # whether the ids of the prompt may stand before it


def written(answer: Any) -> Written | None:
    """The answer in what a tool returned; None for a text and for plain ids. Raises InputError for several answers."""
    if isinstance(answer, Mapping) and "sequences" not in answer:
        return _of_sglang(answer) if "meta_info" in answer else None
    if isinstance(sequences := getattr(answer, "sequences", answer), Tensor):
        return _of_generate(sequences) if sequences.ndim == 2 else None
    if isinstance(outputs := getattr(answer, "outputs", None), Sequence):
        if len(outputs) != 1:
            raise InputError(f"the request has {len(outputs)} outputs: {ONE}")
        answer = outputs[0]
    if hasattr(answer, "token_ids") and hasattr(answer, "text"):
        return Written(_ids(answer.token_ids), answer.text)
    return None


def _of_generate(sequences: Tensor) -> Written:
    if len(sequences) != 1:
        raise InputError(f"generate() returned {len(sequences)} sequences: {ONE}")
    return Written(_ids(sequences[0]), after_prompt=True)


def _of_sglang(answer: Mapping[str, Any]) -> Written:
    if not isinstance(answer.get("output_ids"), Sequence):
        raise InputError('the result of SGLang holds no "output_ids": ask the engine itself, or pass its text')
    return Written(_ids(answer["output_ids"]), answer.get("text"))


def _ids(ids: Any) -> Tensor:
    found = as_ids(list(ids) if isinstance(ids, Sequence) else ids)
    if len(found) and (found.is_floating_point() or found.ndim != 1):
        raise InputError(f"the ids of the answer must be [S] integers, not {found.dtype} {list(found.shape)}")
    return found.long()


def targets(answer: Written, model: Any, tokenizer: Any, inputs: Mapping[str, Any], ends: set[int]) -> Tensor:
    """Token ids [T] of an answer as it is explained: without the prompt before it, and without the end behind it.

    Args:
        tokenizer: of the model here; None leaves the text unchecked. inputs: the prompt. ends: ids that end an answer.
    Raises:
        InputError: an answer to another prompt, of another tokenizer, or none at all.
    """
    ids = _behind(answer.ids, model, inputs) if answer.after_prompt else answer.ids
    if tokenizer is not None:
        _check_tokenizer(ids, answer.text, tokenizer)
    last = next((n for n, token in enumerate(ids.tolist()) if token in ends), len(ids))
    if last == 0:
        raise InputError("the answer that was handed over is empty: it holds no token before its end")
    return ids[:last]


def _behind(ids: Tensor, model: Any, inputs: Mapping[str, Any]) -> Tensor:
    """The ids behind the prompt, which generate() leaves out where it was given embeddings."""
    begun = _begun(model, inputs)
    if ids[: len(begun)].tolist() == begun:
        return ids[len(begun) :]
    if bool(is_visual(model, ids).any()):
        raise InputError("generate() answered another prompt: its ids hold an image, and do not begin with this prompt")
    if reads_elsewhere(model):
        raise InputError(f"{type(model).__name__} does not begin its output with the prompt: pass the answer's text")
    return ids


def _begun(model: Any, inputs: Mapping[str, Any]) -> list[int]:
    """The ids that generate() returns before an answer."""
    given = inputs.get(DECODER_IDS if encodes(model) else IDS)
    if given is not None:
        with suppress(TypeError, ValueError):  # of rows of several lengths: who checks the inputs says so
            return torch.as_tensor(given, device="cpu").flatten().tolist()
        return []
    config = writer_of(model).generation_config
    start = config.decoder_start_token_id
    return [config.bos_token_id if start is None else start] if encodes(model) else []


def _check_tokenizer(ids: Tensor, text: str | None, tokenizer: Any) -> None:
    """Raises InputError for ids that this tokenizer has not, or reads as another text than the tool did."""
    if len(ids) and int(ids.max()) >= len(tokenizer):
        raise InputError(
            f"the answer holds id {int(ids.max())}, and this tokenizer has {len(tokenizer)}: another's ids"
        )
    if not isinstance(text, str):
        return
    read = [_bare(tokenizer.decode(ids, skip_special_tokens=skip)) for skip in (True, False)]
    if not any(each.startswith(_bare(text)) for each in read):  # a stop string cuts the text, not the ids
        here = tokenizer.decode(ids)
        raise InputError(f"the answer's text is {text!r:.60}, and its ids read {here!r:.60} here: another tokenizer's")


def _bare(text: str) -> str:
    """Without white space, which tools decode differently, and without characters that end in a later token."""
    return "".join(text.split()).rstrip("\N{REPLACEMENT CHARACTER}")

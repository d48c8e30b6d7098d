"""The words that TAM weighs against each other: the prompt's behind the image, and the answer's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dexar_fast.methods.base import Asked

ID_NAMES = ("_token_id", "_token_index")


@dataclass(frozen=True)
class Items:
    """M words of the prompt and T of the answer, I in all, on the CPU."""

    ids: Tensor  # [I]
    positions: Tensor  # [I]: where a word of the prompt stands; the query that predicts one of the answer
    names: Tensor  # [I] equal numbers for equal words


def text_items(asked: Asked) -> Items:
    """The prompt's tokens behind the last visual one, but for the special ones, and all of the answer.

    So the header of the assistant's turn counts as far as its tokens are plain words; TAM's code stops before it, at
    markers that are written down for each family.
    """
    prompt = asked.inputs["input_ids"][0].cpu()
    behind = torch.arange(int(asked.visual[-1]) + 1, len(prompt))
    words = behind[~torch.isin(prompt[behind], torch.tensor(sorted(_special_ids(asked))))]
    ids = torch.cat([prompt[words], asked.targets])
    queries = torch.arange(len(asked.targets)) + len(prompt) - 1
    return Items(ids, torch.cat([words, queries]), _names(asked, ids))


def _special_ids(asked: Asked) -> set[int]:
    """Those of the tokenizer, and those that the model's config names."""
    config = asked.model.config
    known = set(getattr(_tokenizer(asked), "all_special_ids", ()))
    return known.union(*map(_named_ids, (config, config.get_text_config(decoder=True))))


def _named_ids(config: Any) -> Iterator[int]:
    for name, value in vars(config).items():
        if name.endswith(ID_NAMES) and value is not None:
            yield from value if isinstance(value, list | tuple) else [value]


def _names(asked: Asked, ids: Tensor) -> Tensor:
    """A number for each word: by its text without the space around it, or by its id where there is no tokenizer."""
    tokenizer = _tokenizer(asked)
    if tokenizer is None:
        return ids
    texts = [tokenizer.decode([token]).strip() for token in ids.tolist()]
    numbers = {text: number for number, text in enumerate(texts)}
    return torch.tensor([numbers[text] for text in texts])


def _tokenizer(asked: Asked) -> Any:
    return getattr(asked.processor, "tokenizer", None)

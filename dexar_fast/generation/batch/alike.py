"""Whether a model computes of a prompt in a batch what it computes of the prompt alone: found in its first batches.

Some families mix the rows of a batch, or count the padding, or read past a segment of a row. They raise no error and
answer something else. So logits are compared: of the prompt with the most padding, or of each segment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from dexar_fast.errors import DexarError, ModelError, reason
from dexar_fast.model.agreement import FLOOR_OF_OTHERS, ROUNDINGS_OF_OTHERS, relative_difference
from dexar_fast.model.cache import to_forward, whole_cache
from dexar_fast.model.logits import last_logits
from dexar_fast.model.memory import is_out_of_memory

Way = tuple[Any, ...]  # in which a batch ran
MIXED = "of a prompt in a batch the model computes something else: its logits differ by {:.2g} of the largest"
_known: WeakKeyDictionary[nn.Module, dict[Way, str]] = WeakKeyDictionary()  # what is wrong; empty where it is rounding


class Mixed(ModelError):
    """The model computes something else of a prompt in a batch."""


def is_known(model: nn.Module, way: Way) -> bool:
    """Whether batches of a kind were seen to give what single prompts give. Raises Mixed where they did not."""
    wrong = _known.setdefault(model, {}).get(way)
    if wrong:
        raise Mixed(wrong)
    return wrong is not None


def count(model: nn.Module) -> int:
    """How many ways were seen."""
    return len(_known.get(model, {}))


def refuse(model: nn.Module, way: Way, wrong: str) -> None:
    """Batches of a kind are not tried again. Raises Mixed."""
    _known.setdefault(model, {})[way] = wrong
    raise Mixed(wrong)


@contextmanager
def first(model: nn.Module, way: Way) -> Iterator[None]:
    """Holds the first batch of a kind: one that the model does not take is refused. Raises Mixed."""
    try:
        yield
    except Exception as error:  # models raise any kind
        if isinstance(error, DexarError) or is_out_of_memory(error):
            raise
        refuse(model, way, reason(error))


@torch.no_grad()
def compare(model: Any, way: Way, alone: Sequence[Mapping[str, Any]], logits: Tensor) -> None:
    """Compares the last logits [B, V] of prompts in a batch with those of the inputs of each alone. Raises Mixed."""
    difference = max(relative_difference(mine, _last(model, each)) for mine, each in zip(logits, alone, strict=True))
    bound = max(FLOOR_OF_OTHERS, ROUNDINGS_OF_OTHERS * torch.finfo(logits.dtype).eps)
    if difference > bound:
        refuse(model, way, MIXED.format(difference))
    _known.setdefault(model, {})[way] = ""


def _last(model: Any, inputs: Mapping[str, Any]) -> Tensor:
    own = model(**inputs, use_cache=True, **to_forward(model, whole_cache(model.config)), **last_logits(model))
    last: Tensor = own.logits[0, -1]
    return last

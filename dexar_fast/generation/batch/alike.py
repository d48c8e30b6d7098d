"""Whether a model computes of a prompt in a batch what it computes of the prompt alone: found in its first batches.

Some families mix the rows of a batch, or count the padding. They raise no error and answer something else. So the
logits of the first token are compared, of the prompt with the most padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from dexar_fast.errors import ModelError
from dexar_fast.model.agreement import FLOOR_OF_OTHERS, ROUNDINGS_OF_OTHERS, relative_difference
from dexar_fast.model.cache import to_forward, whole_cache
from dexar_fast.model.logits import last_logits

Way = tuple[Any, ...]  # in which a batch ran
MIXED = "of a prompt in a batch the model computes something else: its first logits differ by {:.2g} of the largest"
# the difference, 0 where it is rounding
_known: WeakKeyDictionary[nn.Module, dict[Way, float]] = WeakKeyDictionary()


class Mixed(ModelError):
    """The model computes something else of a prompt in a batch."""


def is_known(model: nn.Module, way: Way) -> bool:
    """Whether batches of a kind were seen to give what single prompts give. Raises Mixed where they did not."""
    difference = _known.setdefault(model, {}).get(way)
    if difference:
        raise Mixed(MIXED.format(difference))
    return difference is not None


def count(model: nn.Module) -> int:
    """How many ways were seen."""
    return len(_known.get(model, {}))


@torch.no_grad()
def compare(model: Any, way: Way, alone: Mapping[str, Any], logits: Tensor) -> None:
    """Compares the last logits [V] of a prompt in a batch with those of its inputs alone. Raises Mixed."""
    own = model(**alone, use_cache=True, **to_forward(model, whole_cache(model.config)), **last_logits(model))
    difference = relative_difference(logits, own.logits[0, -1])
    bound = max(FLOOR_OF_OTHERS, ROUNDINGS_OF_OTHERS * torch.finfo(logits.dtype).eps)
    _known.setdefault(model, {})[way] = difference if difference > bound else 0.0
    is_known(model, way)

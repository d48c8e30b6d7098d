"""What several questions share: a pool for the prompts of one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dexar_fast.generation.arguments import beams, new_tokens
from dexar_fast.generation.setup import Setup
from dexar_fast.prompt.request import Request

if TYPE_CHECKING:
    from dexar_fast.kvcache.pool import KVPool


def pool_for(setup: Setup, questions: Sequence[Request], generate_kwargs: Mapping[str, Any]) -> KVPool | None:
    """A pool that holds what the questions share, and the longest of them twice, since it may have to move.

    None where the model takes none, or the extension was not built or does not load: the questions run one by one.
    """
    if setup.elsewhere:
        return None
    try:
        from dexar_fast.kvcache.pool import KVPool
    except ImportError:
        return None
    slots = 1 + (1 + 2 * beams(setup.model, generate_kwargs)) * longest(setup, questions, generate_kwargs)
    return KVPool(slots, backend=setup.backend)


def longest(setup: Setup, questions: Sequence[Request], generate_kwargs: Mapping[str, Any]) -> int:
    """How many tokens the longest of some questions may have with its answer. Raises InputError."""
    found = 0
    for each in questions:
        length, targets = len(each.ids), each.targets
        found = max(
            found, length + (new_tokens(setup.model, length, generate_kwargs) if targets is None else len(targets))
        )
    return found

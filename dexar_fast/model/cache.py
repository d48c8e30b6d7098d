"""The KV cache as a transformers model takes it: made as generate() makes it, passed by the name its forward knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from transformers import DynamicCache, GenerationMixin
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from dexar_fast.errors import ModelError, reason
from dexar_fast.model.modules import parameters

NAMES = ("cache", "past_key_values")  # since transformers 5.24, and before
EMPTY = "DummyLayer"
PROMPT_LENGTH = "set_prefill_length"  # of cache layers that must know it


def to_forward(module: Any, cache: Any) -> dict[str, Any]:
    """The cache as a keyword argument of a module's forward."""
    return {_name(module.forward, type(module).forward): cache}


def to_generate(cache: Any) -> dict[str, Any]:
    """The cache as a keyword argument of generate()."""
    return {_name(GenerationMixin.prepare_inputs_for_generation): cache}


def _name(*functions: Callable[..., Any]) -> str:
    known = {name for function in functions for name in parameters(function)}
    return next((name for name in NAMES if name in known), NAMES[0])


def cache_in(arguments: Mapping[str, Any]) -> Any:
    """The cache among the keyword arguments of a forward, or None."""
    return next((arguments[name] for name in NAMES if arguments.get(name) is not None), None)


def whole_cache(config: Any) -> DynamicCache:
    """An empty cache as generate() makes it for a model, but it keeps every key: the mask makes the window.

    Raises ModelError for a model that caches anything but keys and values.
    """
    try:
        cache = DynamicCache(config=config.get_text_config(decoder=True))
    except Exception as error:  # transformers raises any kind of error for layers that it does not know
        raise ModelError(
            f"transformers can make no cache for the decoder of {type(config).__name__}: {type(error).__name__}: "
            f"{reason(error)}"
        ) from error
    cache.layers = [DynamicLayer() if type(x) is DynamicSlidingWindowLayer else x for x in cache.layers]
    others = {type(layer).__name__ for layer in cache.layers if not is_empty(layer)} - {DynamicLayer.__name__}
    if others:
        raise ModelError(
            f"the decoder of {type(config).__name__} keeps a {' and a '.join(sorted(others))} in its cache, which "
            "cannot be cut back to an earlier token, as one of keys and values alone can"
        )
    return cache


def roomy_cache(config: Any, room: int) -> DynamicCache:
    """`whole_cache` for sequences of at most so many tokens. Raises as that does."""
    cache = whole_cache(config)
    cache.layers = [RoomyLayer(room) if type(x) is DynamicLayer else x for x in cache.layers]
    return cache


class RoomyLayer(DynamicLayer):
    """Has room for so many tokens from the start: a step writes its own, where a DynamicLayer copies all before it."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room
        self._whole: tuple[Tensor, Tensor]  # [B, H_kv, room, D]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self._whole = self._empty(key_states), self._empty(value_states)

    def _empty(self, states: Tensor) -> Tensor:
        return states.new_empty(*states.shape[:2], self._room, states.shape[3])

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Writes the states [B, H_kv, Q, D] behind those it holds; returns all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        keys, values = (whole[:, :, : start + key_states.shape[2]] for whole in self._whole)
        keys[:, :, start:].copy_(key_states.detach())
        values[:, :, start:].copy_(value_states.detach())
        self.keys, self.values = keys, values
        return keys, values


def is_empty(layer: Any) -> bool:
    """Whether a cache layer keeps nothing, as that of a decoder layer without attention, or with another's keys."""
    return type(layer).__name__ == EMPTY


def goes_back(config: Any) -> bool:
    """Whether a decoder's cache can be cut back to an earlier token: whether it keeps keys and values alone."""
    try:
        whole_cache(config)
    except ModelError:
        return False
    return True


def of_whole_forward(model: Any, prompt: int) -> dict[str, Any]:
    """How a forward over a prompt of P tokens and its answer is told of a cache: only where the cache makes the mask.

    A reference window, say, keeps the whole prompt in sight, and of the answer the last tokens (Unlimited-OCR).
    """
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    references = [layer for layer in cache.layers if hasattr(layer, PROMPT_LENGTH)]
    for layer in references:
        getattr(layer, PROMPT_LENGTH)(prompt)
    return {"use_cache": True, **to_forward(model, cache)} if references else {"use_cache": False}


def onward_cache(config: Any) -> DynamicCache | None:
    """An empty cache that keeps every key, beside states; None where the cache makes the mask."""
    cache = DynamicCache(config=config.get_text_config(decoder=True))
    if any(hasattr(layer, PROMPT_LENGTH) for layer in cache.layers):
        return None
    cache.layers = [DynamicLayer() if type(x) is DynamicSlidingWindowLayer else x for x in cache.layers]
    return cache


def length_of(cache: Any) -> int:
    """How many tokens a cache holds; 0 without one."""
    return 0 if cache is None else cache.get_seq_length()


def truncate(cache: Any, length: int) -> None:
    """Drops every key from position `length` on. Raises ModelError as `check_rolls_back` does."""
    if hasattr(cache, "truncate"):
        return cache.truncate(length)
    check_rolls_back(cache)
    for layer in cache.layers:
        if layer.is_initialized and layer.keys is not None:
            layer.keys, layer.values = layer.keys[..., :length, :], layer.values[..., :length, :]


def check_rolls_back(cache: Any) -> None:
    """Raises ModelError for layers that keep a state instead of keys."""
    for layer in cache.layers:
        if not hasattr(layer, "keys"):
            raise ModelError(f"the cache holds a {type(layer).__name__}: recurrent layers cannot be rolled back")

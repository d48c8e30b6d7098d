"""What prompts that begin alike share, images included: the names of their positions, and a start from a pool.

Two positions have the same name if their keys and values are the same, given equal positions before them and the same
state of the model. `of_state` mixes that state in: what other weights have made is not found, and ages out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import nullcontext
from copy import copy
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dexar_fast.kvcache import weights
from dexar_fast.kvcache.cache import PoolCache
from dexar_fast.kvcache.pool import NO_KEYS, Keys, KVPool
from dexar_fast.kvcache.waiting import Lent
from dexar_fast.model.cache import whole_cache
from dexar_fast.model.prefill import Prefix
from dexar_fast.vision.geometry import visual_positions

PER_TOKEN = frozenset({"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "position_ids", "labels"})
PIXELS = "pixel_"  # the inputs that the vision tower reads begin with it
PREFIX_LM = ("paligemma",)  # every position of the prompt attends to all others, those behind it too
LOOK = "get_image_features"  # the method of transformers' models that runs the vision tower
VISUAL = np.uint64(1 << 63)  # no token id has this bit


def position_keys(config: Any, inputs: Mapping[str, Any]) -> Keys:
    """[P] uint64: a text position's key is its token id, a visual position's mixes the images' content and its number.

    All images of a prompt are hashed together, in their order, with their shapes and grids. So a visual key also stands
    for what the image's other tokens tell it (Gemma 3 attends among them in both directions). Hashing them one by one
    would serve no more prompts: an image is only reused together with all others of its prompt (`begin`).

    If the whole prompt is read in both directions (PaliGemma), every key mixes all of it, text included: equal prompts
    have equal keys, different ones share none. Such a prompt has no keys, [0], if it is longer than the model's window
    (PaliGemma 2): its last token, run by itself, would get the window of a token of the answer.

    The keys do not depend on the weights: for a pool that outlives these see `of_state`.
    """
    ids = inputs["input_ids"]
    if config.model_type in PREFIX_LM:
        window = getattr(config.get_text_config(decoder=True), "sliding_window", None)
        fits = window is None or ids.shape[1] <= window
        return _numbered(_content(inputs), ids.shape[1]) if fits else NO_KEYS
    keys = ids[0].cpu().numpy().astype(np.uint64)
    visual = visual_positions(config, ids).cpu().numpy()
    keys[visual] = _numbered(_content(inputs, PER_TOKEN), len(visual))
    return keys


def of_state(keys: Keys, state: int) -> Keys:
    """The keys for a model in one state (`weights.state`): no other state, of whatever model, has the same."""
    return _mix(keys ^ _mix(np.full(1, state, np.uint64)))


def _numbered(content: np.uint64, count: int) -> Keys:
    return _mix(np.arange(count, dtype=np.uint64) + content) | VISUAL


def _content(inputs: Mapping[str, Any], without: frozenset[str] = frozenset()) -> np.uint64:
    """A hash of the inputs, except those named in `without`."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(inputs.items()):
        if name in without:
            continue
        tensor = torch.as_tensor(value)
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return np.frombuffer(digest.digest(), np.uint64)[0]


def _mix(x: Keys) -> Keys:
    """The finalizer of splitmix64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def begin(
    pool: KVPool, config: Any, inputs: Mapping[str, Any], keys: Keys, reserve: int = 0
) -> tuple[PoolCache, dict[str, Any]]:
    """A cache that begins with what the pool knows of a prompt, and the inputs left to pass beside it to generate().

    If all images are known, their pixels are not among the inputs left: the vision tower need not run. A shorter prefix
    is not used: transformers 5.17 places and masks images wrongly when they come behind cached text. When the prompt
    has run, `cache.commit(keys)` makes it known in turn. The cache does not wait for room: whoever could free some may
    need the model first.
    """
    cache = PoolCache(pool, keys, reserve, patient=False)
    if cache.get_seq_length() > int(visual_positions(config, inputs["input_ids"])[-1]):
        return cache, {name: value for name, value in inputs.items() if not name.startswith(PIXELS)}
    cache.reset()
    return cache, dict(inputs)


class PooledPrefix(Prefix):
    """A prompt over a pool: begins with the part that the pool knows for the model as it is, and makes the rest known.

    Args:
        arguments: further ones of the model's forward.
        lent: inside its block others may use the model. While the pool has no room, the prompt waits there.
    """

    def __init__(
        self,
        pool: KVPool,
        model: Any,
        inputs: Mapping[str, Any],
        reserve: int,
        arguments: Mapping[str, Any] | None = None,
        lent: Lent = nullcontext,
    ) -> None:
        super().__init__(model.config)
        whole_cache(model.config)  # or it raises
        self._pool = pool
        self._model = model
        self._arguments = arguments
        self._names = position_keys(model.config, inputs)
        self._reserve = reserve
        self._lent = lent
        self._begun: list[PoolCache] = []
        self._answer: Keys = NO_KEYS
        self._own_look: dict[str, Any] | None = None  # the model's attribute, or none, while ours is in its place

    def begin(self, inputs: Mapping[str, Any]) -> tuple[PoolCache, dict[str, Any]]:
        slots = max(inputs["input_ids"].shape[1], self._reserve)
        cache, left = self._pool.holders.patiently(lambda: self._begin(inputs), slots, self._lent)
        self._begun.append(cache)
        if cache.get_seq_length() == 0 and hasattr(self._model.base_model, LOOK):
            self._look_into_the_pool(_content(inputs, PER_TOKEN))
        return cache, left

    def _begin(self, inputs: Mapping[str, Any]) -> tuple[PoolCache, dict[str, Any]]:
        """Reads the state of the model each time: it may have changed while it was lent."""
        self._state = weights.state(self._model, self._arguments)
        self._keys = of_state(self._names, self._state)
        return begin(self._pool, self._model.config, inputs, self._keys, self._reserve)

    def ran(self, cache: PoolCache) -> None:
        cache.commit(self._keys)

    def answered(self, answer: Tensor) -> None:
        self._answer = answer.cpu().numpy().astype(np.uint64)

    def __exit__(self, error: type[BaseException] | None = None, *_: Any) -> None:
        self._look_again()
        if error is None and self._begun:
            self._remember_the_answer(self._begun[-1])
        for cache in self._begun:
            cache.reset()

    def _remember_the_answer(self, cache: PoolCache) -> None:
        """Names what ran of the answer, too: a dialogue goes on behind it. Not if the model was changed meanwhile."""
        length = cache.get_seq_length()
        named = len(self._names) > 0 and len(self._answer) > 0 and length > 0
        if named and weights.state(self._model, self._arguments) == self._state:
            cache.commit(of_state(np.concatenate([self._names, self._answer]), self._state)[:length])

    def _look_into_the_pool(self, images: np.uint64) -> None:
        """Lets the next run of the vision tower find the features of the last, if the images are the same.

        Serves prompts that differ before their image, or share nothing else (PaliGemma). Holds for one run only: a
        stream lends the model to others while it is written.
        """
        self._look_again()
        look = getattr(self._model.base_model, LOOK)

        @wraps(look)  # generate() goes by its signature
        def features(*args: Any, **kwargs: Any) -> Any:
            self._look_again()
            shapes = [x.shape for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]  # beams repeat the pixels
            name = self._state, images, shapes
            if self._pool.features[0] != name:
                self._pool.features = name, look(*args, **kwargs)
            return copy(self._pool.features[1])  # generate() puts the features of beams into what it is given

        attributes = vars(self._model.base_model)
        self._own_look = {LOOK: attributes[LOOK]} if LOOK in attributes else {}
        attributes[LOOK] = features

    def _look_again(self) -> None:
        if self._own_look is not None:
            del vars(self._model.base_model)[LOOK]
            vars(self._model.base_model).update(self._own_look)
            self._own_look = None

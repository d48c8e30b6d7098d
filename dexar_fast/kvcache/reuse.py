"""What prompts that begin alike share, images included: a start from a pool."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from copy import copy
from functools import wraps
from typing import Any

import numpy as np
import transformers
from torch import Tensor

from dexar_fast.kvcache import weights
from dexar_fast.kvcache.cache import PoolCache
from dexar_fast.kvcache.naming import PER_TOKEN, Pictures, content, of_state, position_keys
from dexar_fast.kvcache.pool import NO_KEYS, Keys, KVPool
from dexar_fast.kvcache.waiting import Lent
from dexar_fast.model.cache import whole_cache
from dexar_fast.model.prefill import Prefix
from dexar_fast.vision.geometry import visual_positions

PIXELS = "pixel_"  # the inputs that the vision tower reads begin with it
LOOK = "get_image_features"  # the method of transformers' models that runs the vision tower
RIGHT_BEHIND = 5, 23  # the first transformers that places and masks images rightly which come behind cached tokens


def takes_images_behind(model: Any) -> bool:
    """Whether an image may come behind cached tokens: older transformers place and mask it wrongly for some models."""
    release = tuple(map(int, transformers.__version__.split(".")[:2]))
    return release >= RIGHT_BEHIND and hasattr(model.base_model, LOOK)


def begin(
    pool: KVPool, config: Any, inputs: Mapping[str, Any], keys: Keys, reserve: int = 0, earlier: int = 0
) -> tuple[PoolCache, dict[str, Any]]:
    """A cache that begins with what the pool knows of a prompt, and the inputs left to pass beside it to generate().

    If all images are known, their pixels are not among the inputs left: the vision tower need not run. A shorter prefix
    is not used, unless it holds the images of the `earlier` visual tokens, whole: the others then come behind it. When
    the prompt has run, `cache.commit(keys)` makes it known in turn. The cache does not wait for room: whoever could
    free some may need the model first.
    """
    cache = PoolCache(pool, keys, reserve, patient=False)
    known, visual = cache.get_seq_length(), visual_positions(config, inputs["input_ids"]).tolist()
    if known > visual[-1]:
        return cache, {name: value for name, value in inputs.items() if not name.startswith(PIXELS)}
    if 0 < earlier < len(visual) and known > visual[earlier - 1]:
        cache.truncate(min(known, visual[earlier]))
    else:
        cache.reset()
    return cache, dict(inputs)


class PooledPrefix(Prefix):
    """A prompt over a pool: begins with the part that the pool knows for the model as it is, and makes the rest known.

    Args:
        answer: [T] ids, if it is given; None: `answered` tells of it.
        arguments: further ones of the model's forward.
        lent: inside its block others may use the model. While the pool has no room, the prompt waits there.
        earlier: the images of an earlier prompt of the same dialogue: they may be known without those behind them.
        rows: how many generate() makes of the prompt.
    """

    def __init__(
        self,
        pool: KVPool,
        model: Any,
        inputs: Mapping[str, Any],
        answer: Tensor | None = None,
        arguments: Mapping[str, Any] | None = None,
        lent: Lent = nullcontext,
        earlier: Pictures | None = None,
        rows: int = 1,
    ) -> None:
        super().__init__(model.config)
        whole_cache(model.config)  # or it raises
        self._pool = pool
        self._model = model
        self._arguments = arguments
        self._names = position_keys(model.config, inputs, earlier)
        self._earlier = earlier if rows == 1 and takes_images_behind(model) else None
        self._reserve = 0 if answer is None else inputs["input_ids"].shape[1] + len(answer)
        self._lent = lent
        self._begun: list[PoolCache] = []
        self._is_given = answer is not None
        self._answer = NO_KEYS if answer is None else _named(answer)
        self._own_look: dict[str, Any] | None = None  # the model's attribute, or none, while ours is in its place

    def begin(self, inputs: Mapping[str, Any]) -> tuple[PoolCache, dict[str, Any]]:
        slots = max(inputs["input_ids"].shape[1], self._reserve)
        cache, left = self._pool.holders.patiently(lambda: self._begin(inputs), slots, self._lent)
        self._begun.append(cache)
        if cache.get_seq_length() == 0 and hasattr(self._model.base_model, LOOK):
            self._look_into_the_pool(content(inputs, PER_TOKEN))
        elif self._earlier is not None and len(left) == len(inputs):
            self._look_at_the_rest(self._earlier)
        return cache, left

    def _begin(self, inputs: Mapping[str, Any]) -> tuple[PoolCache, dict[str, Any]]:
        """Reads the state of the model each time: it may have changed while it was lent."""
        self._state = weights.state(self._model, self._arguments)
        self._keys = of_state(self._names, self._state)
        earlier = 0 if self._earlier is None else len(self._earlier.keys)
        return begin(self._pool, self._model.config, inputs, self._keys, self._reserve, earlier)

    def ran(self, cache: PoolCache) -> None:
        cache.commit(self._keys)

    def answered(self, answer: Tensor) -> None:
        self._answer = _named(answer)

    def __exit__(self, error: type[BaseException] | None = None, *_: Any) -> None:
        self._look_again()
        if error is None and self._begun:
            self._remember_the_answer(self._begun[-1])
        for cache in self._begun:
            cache.reset()

    def _remember_the_answer(self, cache: PoolCache) -> None:
        """Names what ran of the answer, too: a dialogue goes on behind it."""
        length = cache.get_seq_length()
        if len(self._names) > 0 and len(self._answer) > 0 and length > 0 and self._is_unchanged():
            cache.commit(of_state(np.concatenate([self._names, self._answer]), self._state)[:length])

    def _is_unchanged(self) -> bool:
        """Whether the model is as it was: while an answer is written, others and callbacks may change it."""
        return self._is_given or weights.state(self._model, self._arguments) == self._state

    def _look_into_the_pool(self, images: np.uint64) -> None:
        """Lets the next run of the vision tower find the features of the last, if the images are the same.

        Serves prompts that differ before their image, or share nothing else (PaliGemma). Holds for one run only: a
        stream lends the model to others while it is written.
        """

        def features(look: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            shapes = [x.shape for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]  # beams repeat the pixels
            name = self._state, images, shapes
            if self._pool.features[0] != name:
                self._pool.features = name, look(*args, **kwargs)
            return copy(self._pool.features[1])  # generate() puts the features of beams into what it is given

        self._look_by(features)

    def _look_at_the_rest(self, earlier: Pictures) -> None:
        """Lets the next run of the vision tower see the images behind the earlier ones alone, whose keys are known."""

        def features(look: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            named = inspect.signature(look).bind(*args, **kwargs)
            named.arguments.update(earlier.without(named.arguments))
            return look(*named.args, **named.kwargs)

        self._look_by(features)

    def _look_by(self, features: Callable[..., Any]) -> None:
        """Puts a function in the place of the method that runs the vision tower, which it gets, for its next call."""
        self._look_again()
        look = getattr(self._model.base_model, LOOK)

        @wraps(look)  # generate() goes by its signature
        def once(*args: Any, **kwargs: Any) -> Any:
            self._look_again()
            return features(look, *args, **kwargs)

        attributes = vars(self._model.base_model)
        self._own_look = {LOOK: attributes[LOOK]} if LOOK in attributes else {}
        attributes[LOOK] = once

    def _look_again(self) -> None:
        if self._own_look is not None:
            del vars(self._model.base_model)[LOOK]
            vars(self._model.base_model).update(self._own_look)
            self._own_look = None


def _named(answer: Tensor) -> Keys:
    return answer.cpu().numpy().astype(np.uint64)

"""Stages inside transformers' own code: the forwards of generate(), and the image tower within them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

from torch import nn

from dexar_fast.model.cache import cache_in
from dexar_fast.stages import Recorder, stage

FEATURES = ("get_image_features", "get_video_features")


@contextmanager
def inner_stages(model: Any, recorder: Recorder) -> Iterator[None]:
    """Names the model's forwards under generate() "prefill" or "decode", and its image features "vision"."""

    def forward(kwargs: dict[str, Any]) -> str | None:
        if recorder.open[-1:] != ["generation"]:
            return None
        cache = cache_in(kwargs)
        return "decode" if cache is not None and cache.get_seq_length() else "prefill"

    with ExitStack() as stack:
        _wrap(stack, model, "forward", forward)
        for module in model.modules():
            for name in FEATURES:
                if hasattr(module, name):
                    _wrap(stack, module, name, lambda kwargs: "vision")
        yield


def _wrap(stack: ExitStack, owner: nn.Module, name: str, stage_of: Callable[[dict[str, Any]], str | None]) -> None:
    """Makes a method of this one object run in a stage, until the stack unwinds."""
    before, method = vars(owner).get(name), getattr(owner, name)

    @wraps(method)
    def staged(*args: Any, **kwargs: Any) -> Any:
        found = stage_of(kwargs)
        if found is None:
            return method(*args, **kwargs)
        with stage(found):
            return method(*args, **kwargs)

    setattr(owner, name, staged)
    stack.callback(_restore, owner, name, before)


def _restore(owner: nn.Module, name: str, before: Any) -> None:
    """An accelerate hook keeps its own forward on the object; everyone else has the class's."""
    if before is None:
        delattr(owner, name)
    else:
        setattr(owner, name, before)

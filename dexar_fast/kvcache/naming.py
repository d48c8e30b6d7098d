"""The names of a prompt's positions: those of two prompts that begin alike, images included, begin alike.

Two positions have the same name if their keys and values are the same, given equal positions before them and the same
state of the model. `of_state` mixes that state in: what other weights have made is not found, and ages out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dexar_fast.kvcache.pool import NO_KEYS, Keys
from dexar_fast.vision.geometry import visual_positions

TYPES = ("mm_token_type_ids", "token_type_ids")
PER_TOKEN = frozenset({"input_ids", "attention_mask", "position_ids", "labels", *TYPES})
PREFIX_LM = ("paligemma",)  # every position of the prompt attends to all others, those behind it too
VISUAL = np.uint64(1 << 63)  # no token id has this bit


@dataclass(frozen=True)
class Pictures:
    """The images of an earlier prompt of a dialogue, with which a later one may begin.

    All that is known of them is how their visual tokens are named, the shapes of the inputs that told the model of
    them, and a hash of these.
    """

    keys: Keys  # [n], of their visual tokens
    shapes: Mapping[str, torch.Size]
    content: np.uint64

    @classmethod
    def of(cls, config: Any, inputs: Mapping[str, Any], earlier: Pictures | None) -> Pictures | None:
        """The images of a prompt whose first ones may be `earlier` ones, which keep their names.

        None where the whole prompt is read in both directions: then its images are other ones in each prompt.
        """
        if config.model_type in PREFIX_LM:
            return None
        visual = visual_positions(config, inputs["input_ids"]).cpu().numpy()
        shapes = {name: torch.as_tensor(value).shape for name, value in inputs.items() if name not in PER_TOKEN}
        return cls(position_keys(config, inputs, earlier)[visual], shapes, content(inputs, PER_TOKEN))

    def begin(self, inputs: Mapping[str, Any]) -> bool:
        """Whether the images of a prompt begin with these; the model is told of each as it was then."""
        others = {name: torch.as_tensor(value) for name, value in inputs.items() if name not in PER_TOKEN}
        if others.keys() != self.shapes.keys() or any(others[name].ndim != len(x) for name, x in self.shapes.items()):
            return False
        first = {name: others[name][tuple(map(slice, shape))] for name, shape in self.shapes.items()}
        return content(first) == self.content

    def without(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Inputs that tell of the images behind these alone: the first axis that grew counts images, or their parts."""
        return {name: self._rest(name, value) for name, value in inputs.items()}

    def _rest(self, name: str, value: Any) -> Any:
        before = self.shapes.get(name, ())
        grown = [axis for axis, size in enumerate(before) if value.shape[axis] != size]
        return value.narrow(grown[0], before[grown[0]], value.shape[grown[0]] - before[grown[0]]) if grown else value


def position_keys(config: Any, inputs: Mapping[str, Any], earlier: Pictures | None = None) -> Keys:
    """[P] uint64: a text position's key is its token id, a visual position's mixes the images' content and its number.

    Places that are given, and types of text tokens that are not 0, are mixed in (`_told`). No position is masked.

    All images of a prompt are hashed together, in their order, with their shapes and grids. So a visual key also stands
    for what the image's other tokens tell it (Gemma 3 attends among them in both directions). Hashing them one by one
    would serve no more prompts: an image is only reused together with all others of its prompt (`reuse.begin`), but in
    a dialogue. There the images of the `earlier` prompt, if this one begins with them, keep the names they had.

    If the whole prompt is read in both directions (PaliGemma), every key mixes all of it, text included: equal prompts
    have equal keys, different ones share none. Such a prompt has no keys, [0], if it is longer than the model's window
    (PaliGemma 2): its last token, run by itself, would get the window of a token of the answer.

    The keys do not depend on the weights: for a pool that outlives these see `of_state`.
    """
    ids = inputs["input_ids"]
    if config.model_type in PREFIX_LM:
        window = getattr(config.get_text_config(decoder=True), "sliding_window", None)
        fits = window is None or ids.shape[1] <= window
        return _numbered(content(inputs), ids.shape[1]) if fits else NO_KEYS
    keys = ids[0].cpu().numpy().astype(np.uint64)
    visual = visual_positions(config, ids).cpu().numpy()
    keys[visual] = _numbered(_pictured(inputs, visual), len(visual))
    keys = _told(keys, inputs, visual)
    if earlier is not None and len(earlier.keys) <= len(visual) and earlier.begin(inputs):
        keys[visual[: len(earlier.keys)]] = earlier.keys
    return keys


def _pictured(inputs: Mapping[str, Any], visual: NDArray[np.int64]) -> np.uint64:
    """A hash of the images, and of the types of their tokens, which may not be there."""
    types = {name: torch.as_tensor(inputs[name])[0].cpu()[visual] for name in TYPES if name in inputs}
    return content({name: value for name, value in inputs.items() if name not in PER_TOKEN} | types)


def _told(keys: Keys, inputs: Mapping[str, Any], visual: NDArray[np.int64]) -> Keys:
    """The keys with all that is told of their positions: places, and text tokens of a type of their own.

    The types of visual tokens are in their keys already. A key to which nothing is added stays: the answers behind a
    prompt, of whose tokens nothing is told, are named by their ids.
    """
    for name in sorted(inputs.keys() & {"position_ids", *TYPES}):
        salt = content({name: torch.zeros(0)})
        for row in torch.as_tensor(inputs[name]).cpu().reshape(-1, len(keys)).numpy().astype(np.int64):
            told = np.ones(len(keys), bool)
            if name in TYPES:
                told = row != 0
                told[visual] = False
            keys = np.where(told, _mix(keys ^ _mix(row.astype(np.uint64) + salt)), keys)
    return keys


def of_state(keys: Keys, state: int) -> Keys:
    """The keys for a model in one state (`weights.state`): no other state, of whatever model, has the same."""
    return _mix(keys ^ _mix(np.full(1, state, np.uint64)))


def _numbered(content: np.uint64, count: int) -> Keys:
    return _mix(np.arange(count, dtype=np.uint64) + content) | VISUAL


def content(inputs: Mapping[str, Any], without: frozenset[str] = frozenset()) -> np.uint64:
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

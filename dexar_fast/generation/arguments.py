"""What generate() is told: the user's arguments, the generation configs, and what an explanation needs.

generate() goes by its arguments first, then by the generation config it is given, then by the model's own. So do we,
except for its default of 20 tokens.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from dexar_fast.errors import InputError
from dexar_fast.model.prefill import PLAIN
from dexar_fast.prompt.inputs import check_length, context
from dexar_fast.settings import positive

DEFAULT_NEW_TOKENS = 128


def setting(model: Any, generate_kwargs: Mapping[str, Any], name: str) -> Any:
    """The value that generate() goes by; None if nobody sets it."""
    given = asked_for(generate_kwargs, name)
    return getattr(model.generation_config, name, None) if given is None and name not in generate_kwargs else given


def asked_for(generate_kwargs: Mapping[str, Any], name: str) -> Any:
    """The caller's value, from an argument or a generation config."""
    if name in generate_kwargs:  # None undoes what a config says
        return generate_kwargs[name]
    return getattr(generate_kwargs.get("generation_config"), name, None)


def with_tokenizer(model: Any, processor: Any, generate_kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of generate(), and the tokenizer if there are stop strings."""
    if setting(model, generate_kwargs, "stop_strings") is None:
        return generate_kwargs
    return {"tokenizer": getattr(processor, "tokenizer", None)} | generate_kwargs


def check_arguments(model: Any, inputs: Mapping[str, Any], generate_kwargs: Mapping[str, Any]) -> None:
    """Raises InputError for arguments of generate() that an explanation cannot follow."""
    twice = [name for name in generate_kwargs if name in inputs]
    if twice:
        raise InputError(f"{', '.join(twice)} cannot be given twice: the inputs hold it, leave it out")
    config = generate_kwargs.get("generation_config")
    if config is not None and not isinstance(config, GenerationConfig):
        raise InputError(f"generation_config must be a transformers.GenerationConfig, not a {type(config).__name__}")
    if (setting(model, generate_kwargs, "num_return_sequences") or 1) != 1:
        raise InputError(
            "num_return_sequences: one answer is explained at a time; pass num_return_sequences=1, and call again for "
            "another"
        )
    if setting(model, generate_kwargs, "token_healing"):
        raise InputError("token_healing rewrites the prompt that is explained: pass token_healing=False")
    if setting(model, generate_kwargs, "cache_implementation") == "quantized":
        raise InputError(
            "cache_implementation='quantized' rounds the keys and values that are explained: pass "
            "cache_implementation=None"
        )
    if setting(model, generate_kwargs, "stop_strings") is not None and generate_kwargs.get("tokenizer") is None:
        raise InputError(
            "stop_strings, of the arguments or of a generation config, need the tokenizer: give the Explainer a "
            "processor, pass tokenizer=, or pass stop_strings=None"
        )


def check_single(model: Any, generate_kwargs: Mapping[str, Any]) -> None:
    """Raises InputError for arguments that follow more than one answer at once."""
    if beams(model, generate_kwargs) != 1:
        raise InputError(
            "one answer is streamed, as it is written: pass num_beams=1, or call explain(), which takes beams"
        )


def new_tokens(model: Any, prompt: int, generate_kwargs: Mapping[str, Any]) -> int:
    """The most tokens to generate for a prompt of so many.

    The caller's limit must fit the context; that of the model's own config, and the default, are cut to fit it.

    Raises:
        InputError: no positive number, a max_length within the prompt, or more than the context holds.
    """
    name = "max_length" if setting(model, generate_kwargs, "max_new_tokens") is None else "max_new_tokens"
    limit, longest = setting(model, generate_kwargs, name), context(model)
    new = DEFAULT_NEW_TOKENS if limit is None else positive(name, limit) - (prompt if name == "max_length" else 0)
    if new < 1:
        raise InputError(f"max_length {limit} ends before the prompt of {prompt} tokens: pass max_new_tokens")
    if longest is not None and asked_for(generate_kwargs, name) is None:
        new = min(new, longest - prompt)
    check_length(model, prompt, new)
    return new


def at_most(max_new_tokens: int | None, generate_kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of generate() with the length that was asked for. Raises InputError."""
    if max_new_tokens is None:
        return generate_kwargs
    return generate_kwargs | {"max_new_tokens": positive("max_new_tokens", max_new_tokens)}


def beams(model: Any, generate_kwargs: Mapping[str, Any]) -> int:
    """How many answers generate() follows at once."""
    return int(setting(model, generate_kwargs, "num_beams") or 1)


def end_ids(model: Any, generate_kwargs: Mapping[str, Any]) -> set[int]:
    """The ids that end an answer. Raises InputError for what is none."""
    ids = setting(model, generate_kwargs, "eos_token_id")
    if ids is None:
        return set()
    try:
        return {int(i) for i in torch.as_tensor(ids, device="cpu").flatten().tolist()}
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"eos_token_id must be a token's id or a list of ids, not {ids!r:.80}") from None


def without_end(ids: Tensor, ends: set[int]) -> Tensor:
    """The ids [T] before the first that ends an answer."""
    stop = next((i for i, token in enumerate(ids.tolist()) if token in ends), len(ids))
    return ids[:stop]


def forward_arguments(model: Any, generate_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of generate() that it only hands on to the model's forward."""
    own = {*inspect.signature(model.generate).parameters, *vars(model.generation_config)}
    return {name: value for name, value in generate_kwargs.items() if name not in own}


def over(model: Any, generate_kwargs: Mapping[str, Any], limit: Mapping[str, Any]) -> dict[str, Any]:
    """What generate() must do here: stop in time, return a dict, run the prompt at once into the cache it is given.

    These go into a copy of the user's own config, if there is one: transformers will stop taking arguments beside it.
    """
    ours = {**limit, **dict.fromkeys(PLAIN), "return_dict_in_generate": True, "use_cache": True}
    told = owned(generate_kwargs, ours)
    if "generation_config" not in told:
        return told
    # generate() fills what is None in the user's config from the model's own.
    filled = [name for name in PLAIN if getattr(model.generation_config, name, None) is not None]
    return told | dict.fromkeys(filled)


def owned(generate_kwargs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that take the place of the user's: in a copy of their own config, if there is one."""
    config = generate_kwargs.get("generation_config")
    if config is None:
        return dict(ours)
    config = copy.deepcopy(config)
    config.update(**ours)
    return {"generation_config": config}

"""A prompt and its given answer through the model as it is: hooks on its modules see what they compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dexar_fast.model.attention import watcher
from dexar_fast.model.cache import of_whole_forward, to_forward, whole_cache
from dexar_fast.model.decoder import Decoder, PromptWatcher, hidden_states
from dexar_fast.model.logits import last_logits, without_logits
from dexar_fast.model.prefill import takes_answer, with_answer


def head_inputs(
    model: Any,
    inputs: Mapping[str, Any],
    ids: Tensor,
    decoder: Decoder,
    visual: Tensor,
    watching: PromptWatcher | None = None,
) -> Tensor:
    """What the output head reads, [1, P + C, d]: the last hidden states behind the final norm.

    Args:
        inputs: the prompt's, batch 1. ids: [C] of its answer, perhaps none. visual: [N] positions of its image.
        watching: sees the attention of each layer.
    Raises:
        ModelError: the lens, or the model's attention, is not what it was found to be.
    """
    found: list[Tensor] = []
    states: list[Tensor] = []

    def keep(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        if watcher.get() is not None:  # not another thread's forward
            found.append(hidden_states(output))
            beside = decoder.lens.beside
            states.extend([] if beside is None else [beside.after(module, args, kwargs)])

    hook = decoder.last.register_forward_hook(keep, with_kwargs=True)
    try:
        logits = teacher_force(model, inputs, ids, decoder, visual, watching)
    finally:
        hook.remove()
    beside = torch.cat(states, dim=1) if states else None
    normed = decoder.lens.norm(torch.cat(found, dim=decoder.lens.axis), beside)
    decoder.lens.check(normed.detach(), logits.detach())
    return normed


def teacher_force(
    model: Any,
    inputs: Mapping[str, Any],
    ids: Tensor,
    decoder: Decoder,
    visual: Tensor,
    watching: PromptWatcher | None = None,
) -> Tensor:
    """Runs P tokens of a prompt and C of its answer, and returns the logits [1, 1, V] of the last one.

    One forward runs them, or two where tokens of the prompt read later ones (see `takes_answer`): then the answer runs
    over the prompt's keys. Autograd records both, unless it is off. Arguments and errors as `head_inputs`.
    """
    ids = ids.to(inputs["input_ids"].device)
    prompt = inputs["input_ids"].shape[1]
    watching = watching or PromptWatcher(model, prompt, inputs)
    with watching.watching():
        if takes_answer(inputs, decoder, visual) or len(ids) == 0:
            passed = of_whole_forward(model, prompt) | last_logits(model)
            return model(**with_answer(inputs, ids), **passed).logits[:, -1:]
        cache = whole_cache(model.config)
        model(**inputs, **to_forward(model, cache), use_cache=True, **without_logits(model))
        with counting_on(watching.last_positions):
            steps = to_forward(model, cache) | last_logits(model)
            return model(input_ids=ids[None], use_cache=True, **steps).logits[:, -1:]


@contextmanager
def counting_on(last: Mapping[nn.Module, Tensor]) -> Iterator[None]:
    """Inside the block positions count on from those of the last prompt token, as generate() counts them."""
    with ExitStack() as stack:
        for module, position in last.items():
            hook = partial(_count_on, position)
            stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield


def _count_on(last: Tensor, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
    if watcher.get() is None:
        return None
    steps = torch.arange(1, kwargs["position_ids"].shape[-1] + 1, device=last.device)
    return args, kwargs | {"position_ids": last + steps}

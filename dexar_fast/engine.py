"""The pass: target tokens in chunks over a live KV cache, one VJP per layer, nothing kept but the sums.

    cache holds the prompt's P keys; cut it back to P - 1
    for each chunk of C targets, queried at positions p_t = P - 1 + t:
        in every layer: attention output -> leaf -> layer tail -> lens -> VJP -> u -> scores and maps -> drop

The last prompt token is run again as the first query, under the mask it had in the prefill; the keys before it were
computed in its presence. So a bidirectional prefix (PaliGemma) stays exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dexar_fast import ops
from dexar_fast.attention import Watcher, attendable, watcher
from dexar_fast.decoder import hidden_states
from dexar_fast.errors import ModelError
from dexar_fast.generation import Prompt, last_logits_only, truncate
from dexar_fast.geometry import Grid
from dexar_fast.memory import halving


@dataclass(frozen=True)
class Plan:
    """What to compute over one sequence of P prompt and T target tokens."""

    prompt: int  # P
    layers: list[int]  # which of the layers that hold attention
    visual: Tensor  # [N] positions, on the CPU
    text: Tensor  # [P + T] bool, on the CPU: True where a position counts as text
    grids: tuple[Grid, ...]
    score: Callable[..., ops.LayerAttribution]  # ops.attribute_layer with its knobs filled in
    double_final_norm: bool  # the authors' code norms the last layer's output twice


@dataclass(frozen=True)
class Attribution:
    """The raw sums of the pass, on the CPU, float32 or better."""

    visual_scores: Tensor  # [T, L, H]
    text_scores: Tensor  # [T, L, H]
    text_winners: Tensor  # [P + T] how many heads, over all tokens and layers, each key won S_txt in
    token_maps: Tensor  # [T, N]
    unfiltered_token_maps: Tensor  # [T, N]
    range: Tensor | None  # [2] smallest and largest G over the visual keys


def explain(model: Any, prompt: Prompt, sequence: Tensor, plan: Plan, chunk: int) -> Attribution:
    """Explains the tokens of `sequence` [P + T] behind the prompt, in chunks of at most `chunk`.

    Raises:
        OutOfMemoryError: not even one token at a time fits.
    """
    chunks: list[Chunk] = []
    with Pass(model, prompt, plan).hooked() as running:
        start, end = plan.prompt - 1, len(sequence) - 1
        while start < end:
            done, chunk = halving(partial(running.chunk, sequence, start), chunk, end - start)
            chunks.append(done)
            start += len(done.targets)
    return _join(chunks, len(sequence))


@dataclass
class Chunk:
    """C targets, the queries that predict them, and what the layers said about them so far."""

    targets: Tensor  # [C] token ids
    start: int  # position of the first query
    layers: list[ops.LayerAttribution] = field(default_factory=list)
    token_map: Tensor | None = None  # [C, N]
    unfiltered_token_map: Tensor | None = None  # [C, N]

    def add(self, part: ops.LayerAttribution) -> None:
        self.layers.append(part)
        self.token_map = _plus(self.token_map, part.token_map)
        self.unfiltered_token_map = _plus(self.unfiltered_token_map, part.unfiltered_token_map)


class Pass(Watcher):
    """The hooks that take each layer's VJP inside that layer's own forward."""

    explicit_masks = True

    def __init__(self, model: Any, prompt: Prompt, plan: Plan) -> None:
        self._model = model
        self._prompt = prompt
        self._plan = plan
        self._wanted = {id(prompt.decoder.attentions[i]) for i in plan.layers}
        self._chunk: Chunk
        self._leaf: Tensor  # [1, C, H, D] the layer's attention output
        self._value: Tensor  # [1, H_kv, S, D]
        self._keys: ops.Keys
        # by the id of a mask, which layers share; the mask is held so that its id stays its own
        self._known_masks: dict[int, tuple[Tensor, Tensor]] = {}
        self._known_keys: dict[int, tuple[Tensor | None, ops.Keys]] = {}

    @contextmanager
    def hooked(self) -> Iterator[Pass]:
        """Hooks the layers for this thread's forwards."""
        token = watcher.set(self)
        try:
            with ExitStack() as stack:
                for index in self._plan.layers:
                    stack.callback(self._prompt.decoder.layers[index].register_forward_hook(self._hook(index)).remove)
                yield self
        finally:
            watcher.reset(token)

    @torch.no_grad()
    def chunk(self, sequence: Tensor, start: int, size: int) -> Chunk:
        """One forward of `size` queries from position `start` on; each predicts the token one further."""
        cache = self._prompt.cache
        truncate(cache, start)
        self._chunk = Chunk(sequence[start + 1 : start + size + 1], start)
        self._known_masks.clear()
        self._known_keys.clear()
        queries = sequence[None, start : start + size]
        self._model(input_ids=queries, past_key_values=cache, use_cache=True, **last_logits_only(self._model))
        return self._chunk

    def mask(self, module: nn.Module, mask: Tensor | None) -> Tensor | None:
        """The last prompt token keeps the mask row of the prefill."""
        row = self._prompt.last_rows.get(id(module))
        if row is None or mask is None or self._chunk.start >= self._plan.prompt:
            return mask
        if id(mask) not in self._known_masks:
            patched = mask.clone()
            patched[:, :, :1, : row.shape[-1]] = row
            self._known_masks[id(mask)] = mask, patched
        return self._known_masks[id(mask)][1]

    def attention(self, module: nn.Module, output: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Makes the attention output a leaf [1, C, H, D] and lets autograd record the rest of the layer."""
        if id(module) not in self._wanted:
            return output
        keys = self._chunk.start + len(self._chunk.targets)
        if value.shape[2] != keys:
            raise ModelError(
                f"{type(module).__name__} reads {value.shape[2]} keys where the sequence has {keys}: "
                "cross-attention and caches that drop keys are not supported"
            )
        self._leaf, self._value = output.detach().requires_grad_(), value
        self._keys = self._keys_under(mask, value)
        torch.set_grad_enabled(True)
        return self._leaf

    def _keys_under(self, mask: Tensor | None, value: Tensor) -> ops.Keys:
        if id(mask) not in self._known_keys:
            seen = attendable(mask, len(self._chunk.targets), value.shape[2], value.device)
            text = self._plan.text[: value.shape[2]].nonzero()[:, 0]
            self._known_keys[id(mask)] = mask, ops.Keys.of(self._plan.visual, text, seen)
        return self._known_keys[id(mask)][1]

    def _hook(self, index: int) -> Callable[[nn.Module, Any, Any], Any]:
        norm_twice = self._plan.double_final_norm and index == len(self._prompt.decoder.layers) - 1

        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            if watcher.get() is not self:
                return output
            hidden = hidden_states(output)
            u = self._vjp(hidden, norm_twice)
            self._chunk.add(self._plan.score(u[0], self._value[0], self._keys))
            return (hidden.detach(), *output[1:]) if isinstance(output, tuple) else hidden.detach()

        return hook

    def _vjp(self, hidden: Tensor, norm_twice: bool) -> Tensor:
        """u = d o[v_t] / d (attention output at p_t) of every query at once: [1, C, H, D]."""
        lens = self._prompt.decoder.lens
        normed = lens.norm(lens.norm(hidden)) if norm_twice else lens.norm(hidden)
        (u,) = torch.autograd.grad(lens.logits(normed, self._chunk.targets).sum(), self._leaf)
        torch.set_grad_enabled(False)
        return u


def _plus(total: Tensor | None, part: Tensor) -> Tensor:
    return part if total is None else total.add_(part.to(total.device))


def _join(chunks: list[Chunk], length: int) -> Attribution:
    def stacked(name: str) -> Tensor:
        return torch.cat([_stack([getattr(layer, name) for layer in chunk.layers]) for chunk in chunks])

    winners = stacked("text_winner").flatten()
    ranges = [layer.range.cpu() for chunk in chunks for layer in chunk.layers if layer.range is not None]
    return Attribution(
        visual_scores=stacked("visual_score"),
        text_scores=stacked("text_score"),
        text_winners=torch.bincount(winners[winners >= 0], minlength=length),
        token_maps=torch.cat([chunk.token_map.cpu() for chunk in chunks if chunk.token_map is not None]),
        unfiltered_token_maps=torch.cat(
            [chunk.unfiltered_token_map.cpu() for chunk in chunks if chunk.unfiltered_token_map is not None]
        ),
        range=_range(ranges) if ranges else None,
    )


def _stack(layers: list[Tensor]) -> Tensor:
    """[C, H] of each layer, on whichever devices, to [C, L, H] on the CPU."""
    if len({layer.shape for layer in layers}) > 1:
        raise ModelError("the decoder's layers differ in their number of heads: not supported")
    return torch.stack([layer.to(layers[0].device) for layer in layers], dim=1).cpu()


def _range(ranges: list[Tensor]) -> Tensor:
    lowest, highest = torch.stack(ranges).unbind(1)
    return torch.stack([lowest.min(), highest.max()])

"""DEX-AR by brute force: eager attention over the full sequence, one autograd.grad per token and layer.

Straight from the definitions (G, S_img, S_txt, w, E, U, delta, E_seq) with loops where the engine has none,
so that the two share no shortcut. Give it a float64 model: attention and sums then run in float64 (norms,
rotary embeddings and expert routing stay in the float32 that the model classes themselves fix).
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

Inputs = dict[str, torch.Tensor]
HeadScore = str | tuple[str, int]
NAME = "oracle_eager"


def oracle(
    model: PreTrainedModel,
    inputs: Inputs,
    target_ids: torch.Tensor,
    *,
    layers: list[int] | None = None,
    text_set: str = "all",
    head_score: HeadScore = "max",
    map_filter: tuple[str, int] | None = None,
    sequence_norm: str = "none",
    grid: tuple[int, int] | None = None,
    against: torch.Tensor | None = None,
    return_gradients: bool = False,
) -> dict[str, torch.Tensor]:
    """Every array of an Explanation, float64, for `target_ids` [T] after the processor's `inputs`.

    With `against` [T], o_l[v_t] is less o_l[against_t].
    `grid` is (rows, columns) of the one visual grid, needed by `map_filter` only. With `return_gradients`
    also `gradients` [T, L, H, P + T]: relu(d o_l[v_t] / d A_l[h, j]), 0 at keys that p_t cannot attend to.
    """
    prompt = inputs["input_ids"].shape[1]
    gradients, attendable = _gradients(model, inputs, target_ids, against)
    if layers is not None:
        gradients, attendable = gradients[:, layers], attendable[:, layers]
    visual = _is_visual(model, inputs["input_ids"][0], gradients.shape[-1])
    text = _is_text(visual, prompt, text_set)

    maps = filtered = gradients[..., visual]
    if map_filter is not None:
        assert grid is not None
        filtered = _rank_filter(maps, grid, map_filter[1])
    visual_scores = _scores(filtered, attendable[..., visual], head_score)
    if map_filter is not None:
        visual_scores = visual_scores * _rescale(maps, filtered)[..., None]
    text_scores = _scores(gradients[..., text], attendable[..., text], head_score)

    result = _combine(visual_scores, text_scores, maps, filtered, sequence_norm)
    result["visual_positions"] = visual.nonzero()[:, 0]
    return result | {"gradients": gradients} if return_gradients else result


def _combine(
    visual_scores: torch.Tensor,
    text_scores: torch.Tensor,
    maps: torch.Tensor,
    filtered: torch.Tensor,
    sequence_norm: str,
) -> dict[str, torch.Tensor]:
    """Equations 4 to 6: head filter, token maps, token weights, sequence maps."""
    head_weights = (visual_scores - text_scores).relu()
    token_weights = (visual_scores.amax((1, 2)) - text_scores.amax((1, 2))).relu()
    token_maps = (head_weights[..., None] * filtered).sum((1, 2))
    unfiltered = maps.sum((1, 2))
    scale = _min_max if sequence_norm == "token" else torch.Tensor.clone
    return {
        "visual_scores": visual_scores,
        "text_scores": text_scores,
        "head_weights": head_weights,
        "token_weights": token_weights,
        "token_maps": token_maps,
        "unfiltered_token_maps": unfiltered,
        "sequence_map": sum_over_tokens(token_weights, [scale(row) for row in token_maps]),
        "unfiltered_sequence_map": sum(scale(row) for row in unfiltered),  # as the authors: no filter, no token weight
    }


def sum_over_tokens(weights: torch.Tensor, rows: list[torch.Tensor]) -> torch.Tensor:
    return sum((weight * row for weight, row in zip(weights, rows, strict=True)), torch.zeros_like(rows[0]))


def _min_max(row: torch.Tensor) -> torch.Tensor:
    low, high = row.min(), row.max()
    return (row - low) / (high - low) if high > low else torch.zeros_like(row)


def _is_visual(model: PreTrainedModel, prompt_ids: torch.Tensor, length: int) -> torch.Tensor:
    ids = [getattr(model.config, name, None) for name in ("image_token_id", "video_token_id")]
    visual = torch.zeros(length, dtype=torch.bool)
    for token in ids:
        if token is not None:
            visual[: len(prompt_ids)] |= prompt_ids == token
    return visual


def _is_text(visual: torch.Tensor, prompt: int, text_set: str) -> torch.Tensor:
    position = torch.arange(len(visual))
    inside = {"all": position >= 0, "prompt": position < prompt, "generated": position >= prompt}
    return ~visual & inside[text_set]


def _scores(gradients: torch.Tensor, attendable: torch.Tensor, how: HeadScore) -> torch.Tensor:
    """[T, L, H] from gradients [T, L, H, K] over the keys of the set that p_t can attend to, [T, L, K]."""
    tokens, layers, heads, _ = gradients.shape
    scores = torch.zeros(tokens, layers, heads, dtype=torch.float64)
    for t, layer, head in itertools.product(range(tokens), range(layers), range(heads)):
        scores[t, layer, head] = _score(gradients[t, layer, head][attendable[t, layer]], how)
    return scores


def _score(values: torch.Tensor, how: HeadScore) -> torch.Tensor:
    if len(values) == 0:
        return torch.zeros((), dtype=torch.float64)
    if how == "max":
        return values.max()
    if how == "mean":
        return values.mean()
    return values.sort(descending=True).values[: int(how[1])].mean()


def _rank_filter(maps: torch.Tensor, grid: tuple[int, int], rank: int) -> torch.Tensor:
    """The rank-th smallest of each cell's 3 x 3 neighbourhood, edges repeated; maps [..., rows * columns]."""
    rows, columns = grid
    filtered = torch.zeros_like(maps).unflatten(-1, grid)
    image = maps.unflatten(-1, grid)
    for row, column in itertools.product(range(rows), range(columns)):
        neighbours = [
            image[..., min(max(row + down, 0), rows - 1), min(max(column + right, 0), columns - 1)]
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
        ]
        filtered[..., row, column] = torch.stack(neighbours).sort(dim=0).values[rank - 1]
    return filtered.flatten(-2)


def _rescale(maps: torch.Tensor, filtered: torch.Tensor) -> torch.Tensor:
    """[T, L]: median over heads of the raw maximum, over that of the filtered maximum (0 for 0)."""
    raw, smooth = _median(maps.amax(-1)), _median(filtered.amax(-1))
    return torch.where(smooth > 0, raw / smooth, torch.zeros_like(raw))


def _median(values: torch.Tensor) -> torch.Tensor:
    """Midpoint median over the last axis."""
    ordered = values.sort(-1).values
    count = values.shape[-1]
    return (ordered[..., (count - 1) // 2] + ordered[..., count // 2]) / 2


@dataclass
class Recording:
    """One eager forward: A_l [1, H, S, S] in the graph, which keys each query sees [S, S], x_l [1, S, d]."""

    attention: list[torch.Tensor] = field(default_factory=list)
    attendable: list[torch.Tensor] = field(default_factory=list)
    outputs: list[torch.Tensor] = field(default_factory=list)
    logits: torch.Tensor = field(default_factory=lambda: torch.empty(0))


def _gradients(
    model: PreTrainedModel, inputs: Inputs, target_ids: torch.Tensor, against: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """G [T, L, H, S] and the attendable keys [T, L, S] of every explained position."""
    recording = record(model, full_sequence(model, inputs, target_ids))
    first = inputs["input_ids"].shape[1] - 1
    layers = range(len(recording.outputs))
    gradients = [
        [_gradient(model, recording, layer, first + t, int(target)) for layer in layers]
        for t, target in enumerate(target_ids)
    ]
    for t, other in enumerate([] if against is None else against):
        for layer in layers:
            gradients[t][layer] = gradients[t][layer] - _gradient(model, recording, layer, first + t, int(other))
    attendable = [[rows[first + t] for rows in recording.attendable] for t in range(len(target_ids))]
    mask = torch.stack([torch.stack(row) for row in attendable])
    relu = torch.stack([torch.stack(row) for row in gradients]).double().relu()
    return relu * mask[:, :, None], mask


def _gradient(model: PreTrainedModel, recording: Recording, layer: int, position: int, target: int) -> torch.Tensor:
    """d o_l[target] / d A_l[:, position, :], [H, S]: o_l is read at `position` alone."""
    logit = lens(model, recording.outputs[layer][:, position])[0, target]
    (gradient,) = torch.autograd.grad(logit, recording.attention[layer], retain_graph=True)
    return gradient[0, :, position]


def full_sequence(model: PreTrainedModel, inputs: Inputs, target_ids: torch.Tensor) -> Inputs:
    """Inputs of the one pass over prompt and answer that means the same as decoding the answer."""
    # A PaliGemma answer is the causal suffix (type 1); everywhere else an answer token is text (type 0).
    types = {
        "attention_mask": 1,
        "token_type_ids": int(model.config.model_type == "paligemma"),
        "mm_token_type_ids": 0,
        "moe_mm_token_type_ids": 0,
    }
    full = {name: value for name, value in inputs.items() if name != "labels"}
    full["input_ids"] = torch.cat([inputs["input_ids"], target_ids[None]], 1)
    for name in types.keys() & inputs.keys():
        full[name] = torch.cat([inputs[name], inputs[name].new_full((1, len(target_ids)), types[name])], 1)
    return full


def lens(model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """What the family's forward does between its last decoder layer and its logits, written out by hand."""
    logits = model.lm_head(text_model(model).norm(hidden))
    cap = getattr(model.config.text_config, "final_logit_softcapping", None)
    if cap is not None and _forward_caps_logits(model):
        logits = cap * torch.tanh(logits / cap)
    return logits


def _forward_caps_logits(model: PreTrainedModel) -> bool:
    """PaliGemma's forward caps from some 5.x on (5.17 does not, 5.23 does); Gemma 3's never does."""
    return "final_logit_softcapping" in inspect.getsource(type(model).forward)


def text_model(model: PreTrainedModel) -> Any:
    return model.model.text_model if hasattr(model.model, "text_model") else model.model.language_model


def record(model: PreTrainedModel, full: Inputs) -> Recording:
    """Run the model once with eager attention in its own precision and keep the graph."""
    recording = Recording()
    with _eager_text_attention(model, recording), _layer_outputs(model, recording), torch.enable_grad():
        recording.logits = model(**full, use_cache=False).logits
    # The lens written by hand and the recorded layers must be this model's own.
    lens_logits = lens(model, recording.outputs[-1])
    torch.testing.assert_close(lens_logits, recording.logits, rtol=0, atol=1e-10)
    return recording


@contextmanager
def _layer_outputs(model: PreTrainedModel, recording: Recording) -> Iterator[None]:
    def keep(_module: Any, _args: Any, output: Any) -> None:
        recording.outputs.append(output[0] if isinstance(output, tuple) else output)

    handles = [layer.register_forward_hook(keep) for layer in text_model(model).layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _eager_text_attention(model: PreTrainedModel, recording: Recording) -> Iterator[None]:
    def attend(
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor,
        scaling: float,
        softcap: float | None = None,
        **_unused: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        groups = query.shape[1] // key.shape[1]
        scores = query @ key.repeat_interleave(groups, 1).transpose(2, 3) * scaling
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        attention = (scores + attention_mask).softmax(-1)
        recording.attention.append(attention)
        recording.attendable.append(attention_mask[0, 0] == 0)
        output = attention @ value.repeat_interleave(groups, 1)
        return output.transpose(1, 2).contiguous(), attention

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, eager_mask)
    previous = model.config.text_config._attn_implementation
    model.set_attn_implementation({"text_config": NAME})
    try:
        yield
    finally:
        model.set_attn_implementation({"text_config": previous})

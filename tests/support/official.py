"""The loop of the DEX-AR authors' package (github WalBouss/DEX-AR at cb8899b), re-implemented by brute force.

Only tests use it. One eager forward of the whole sequence for every token, no cache, all attention matrices
in one graph that is differentiated layer by layer, every gradient kept to the end: slow on purpose, and
independent of the engine. What differs from the paper is marked `quirk`; METHOD.md section 4 lists the same.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

EAGER = "official_eager"


@dataclass(frozen=True)
class Official:
    """What the loop computes before each map's own min-max, by the names of the fields of an Explanation."""

    visual_scores: Tensor  # [T, L', H], L' the layers from layer_index on
    text_scores: Tensor  # [T, L', H]
    head_weights: Tensor  # [T, L', H]
    token_weights: Tensor  # [T]
    token_maps: Tensor  # [T, N]
    unfiltered_token_maps: Tensor  # [T, N]
    sequence_map: Tensor  # [N]
    unfiltered_sequence_map: Tensor  # [N]


def official(model, inputs: dict, target_ids: Tensor, image: range, layer_index: int) -> Official:
    """Explain `target_ids` [T] after the prompt of `inputs`, whose image occupies the positions `image`."""
    model = eager_copy(model)
    prompt = inputs["input_ids"].shape[1]
    sequence = inputs["input_ids"]
    visual, text_max = [], []
    for target in target_ids:
        gradients = attention_gradients(model, sequence, inputs["pixel_values"], target, layer_index)
        visual.append(gradients[..., image.start : image.stop])
        text_max.append(gradients[..., text_keys(image, prompt, sequence.shape[1])].amax(-1))
        sequence = torch.cat([sequence, target.view(1, 1)], dim=1)
    return aggregate(torch.stack(visual), torch.stack(text_max))


def eager_copy(model):
    model = copy.deepcopy(model).eval()
    model.set_attn_implementation({"text_config": EAGER})
    return model


def eager_attention(module, query, key, value, attention_mask, scaling, **kwargs) -> tuple[Tensor, Tensor]:
    """As transformers' own eager attention, but its softmax stays in float64 for a float64 model."""
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    weights = (query @ key.mT * scaling + attention_mask).softmax(-1)
    return (weights @ value).transpose(1, 2), weights


AttentionInterface.register(EAGER, eager_attention)
AttentionMaskInterface.register(EAGER, eager_mask)


def attention_gradients(model, sequence: Tensor, pixels: Tensor, target: Tensor, layer_index: int) -> Tensor:
    """relu(d logit-lens of `target` / d attention row of the last position), layer by layer: [L', H, S]."""
    mask = torch.ones_like(sequence)
    with torch.enable_grad():
        outputs = model(sequence, pixels, mask, output_attentions=True, output_hidden_states=True, use_cache=False)
        rows = []
        for layer in used_layers(len(outputs.attentions), layer_index):
            # quirk: the last of hidden_states is normed already, so the last layer is normed twice
            hidden = outputs.hidden_states[layer + 1][:, -1]
            logit = model.lm_head(model.model.language_model.norm(hidden))[0, target]
            gradient = torch.autograd.grad(logit, outputs.attentions[layer], retain_graph=True)[0]
            rows.append(gradient[0, :, -1].clamp(min=0))
    return torch.stack(rows)


def used_layers(depth: int, layer_index: int) -> range:
    """quirk: only the layers from layer_index on (theirs fails where it reaches below the first layer)."""
    return range(layer_index if layer_index >= 0 else max(depth + layer_index, 0), depth)


def text_keys(image: range, prompt: int, length: int) -> list[int]:
    """Keys whose gradient counts as text, for a prompt of `prompt` tokens grown to `length` tokens.

    quirk: the slice from the image to the last prompt token starts one late, so the first token after the
    image is dropped; the slice of generated tokens starts one early, at the last prompt token.
    """
    return [*range(image.start), *range(image.stop + 1, prompt - 1), *range(prompt - 1, length)]


def aggregate(gradients: Tensor, text_max: Tensor) -> Official:
    """Scores and maps, from image gradients [T, L', H, N] and the largest text gradient [T, L', H]."""
    visual_max = gradients.amax(-1)
    weights = (visual_max - text_max).clamp(min=0)
    token_weights = (visual_max.flatten(1).amax(1) - text_max.flatten(1).amax(1)).clamp(min=0)
    # quirk: one scale for all tokens, layers and heads, after the scores are taken
    scaled = min_max(gradients)
    filtered = scaled * weights[..., None]
    return Official(
        visual_scores=visual_max,
        text_scores=text_max,
        head_weights=weights,
        token_weights=token_weights,
        token_maps=filtered.sum((1, 2)),
        unfiltered_token_maps=scaled.sum((1, 2)),
        sequence_map=(filtered * token_weights[:, None, None, None]).sum((0, 1, 2)),
        unfiltered_sequence_map=scaled.sum((0, 1, 2)),  # tokens count alike here, whatever their weight
    )


def min_max(values: Tensor) -> Tensor:
    return (values - values.min()) / (values.max() - values.min())


def displayed(raw: Tensor) -> Tensor:
    """A map as the authors return it: min-max on its own, a constant one as it is."""
    return min_max(raw) if raw.max() > raw.min() else raw


def image_by_retokenising(tokenizer, prompt: str, count: int) -> range:
    """Where the authors look for the image: behind the text before `<image>`, tokenised on its own."""
    start = len(tokenizer.encode(prompt.split("<image>")[0]))
    return range(start, start + count)

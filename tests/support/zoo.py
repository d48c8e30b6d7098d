"""Tiny random models of the real transformers classes, one builder per vision-language family.

`build(family)` gives the model and exactly what that family's processor returns for one prompt (batch 1):
placeholders expanded, `labels` for PaliGemma, `pixel_values` in float32. Weights are drawn in float32 from
the seed and are large on purpose (matrices N(0, 0.3), norms and biases random): attention is far from
uniform, every part of a layer's tail bends the gradient, and some heads pass the head filter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel

Inputs = dict[str, torch.Tensor]
Built = tuple[PreTrainedModel, Inputs]

VOCABULARY = 200
BOS, EOS, PAD, NEWLINE = 2, 1, 0, 3
IMAGE, VIDEO, START, END = 190, 191, 192, 193
FAKE, GLOBAL, BREAK, TILE = 194, 195, 196, 180

HIDDEN, HEADS, HEAD_DIM = 64, 4, 16
TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "head_dim": HEAD_DIM,
    "max_position_embeddings": 512,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
SIGLIP = {**VISION, "model_type": "siglip_vision_model", "vision_use_head": False}
CLIP = {**VISION, "model_type": "clip_vision_model", "num_hidden_layers": 3, "projection_dim": 32}


class Draw:
    """Random tensors from one seed, in float32: a model starts from the same numbers in every dtype."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator)

    def words(self, count: int) -> list[int]:
        """Text token ids, none of them special."""
        return torch.randint(10, TILE, (count,), generator=self.generator).tolist()


def _model(model_type: str, dtype: torch.dtype, draw: Draw, **config: Any) -> PreTrainedModel:
    """The family's class with its weights redrawn, in evaluation mode."""
    model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(model_type, **config), dtype=dtype)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            parameter.copy_(_weights(name, parameter, draw))
    model.generation_config.eos_token_id = EOS
    model.generation_config.pad_token_id = PAD
    return model.eval()


def _weights(name: str, parameter: torch.Tensor, draw: Draw) -> torch.Tensor:
    noise = draw.normal(*parameter.shape)
    if name.endswith(".weight") and parameter.ndim == 1:
        return 1 + 0.3 * noise
    return 0.3 * noise


def _text_inputs(ids: list[int]) -> Inputs:
    input_ids = torch.tensor([ids])
    return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}


def _prompt(draw: Draw, *blocks: list[int], before: int = 5, after: int = 7) -> list[int]:
    """BOS, words, then every image block with words behind it."""
    ids = [BOS, *draw.words(before)]
    for block in blocks:
        ids += [*block, *draw.words(after)]
    return ids


def llava(dtype: torch.dtype, seed: int, *, images: int = 1) -> Built:
    draw = Draw(seed)
    text = {**TEXT, "model_type": "llama"}
    model = _model("llava", dtype, draw, text_config=text, vision_config=CLIP, image_token_index=IMAGE)
    inputs = _text_inputs(_prompt(draw, *[[IMAGE] * 16] * images))
    return model, inputs | {"pixel_values": draw.normal(images, 3, 16, 16)}


def bakllava(dtype: torch.dtype, seed: int) -> Built:
    draw = Draw(seed)
    text = {**TEXT, "model_type": "mistral", "sliding_window": 20}
    model = _model("llava", dtype, draw, text_config=text, vision_config=CLIP, image_token_index=IMAGE)
    inputs = _text_inputs(_prompt(draw, [IMAGE] * 16))
    return model, inputs | {"pixel_values": draw.normal(1, 3, 16, 16)}


def llava_next(dtype: torch.dtype, seed: int) -> Built:
    """Two images with newline features: 24 x 60 pixels on 1 x 2 tiles, 40 x 36 on 2 x 2, unpadded."""
    draw = Draw(seed)
    model = _model(
        "llava_next",
        dtype,
        draw,
        text_config={**TEXT, "model_type": "llama"},
        vision_config={**CLIP, "patch_size": 8},
        image_token_index=IMAGE,
        image_grid_pinpoints=[[16, 32], [32, 16], [32, 32]],
    )
    pixel_values = draw.normal(2, 5, 3, 16, 16)
    pixel_values[0, 3:] = 0
    image = {"pixel_values": pixel_values, "image_sizes": torch.tensor([[24, 60], [40, 36]])}
    return model, _text_inputs(_prompt(draw, *_feature_blocks(model, image), before=4, after=5)) | image


def llava_onevision(dtype: torch.dtype, seed: int) -> Built:
    """One 44 x 16 image on 2 x 1 tiles, unpadded to 8 x 2, newline features included."""
    draw = Draw(seed)
    model = _onevision(dtype, draw)
    image = {
        "pixel_values": draw.normal(1, 3, 3, 16, 16),
        "image_sizes": torch.tensor([[44, 16]]),
        "batch_num_images": torch.tensor([1]),
    }
    return model, _text_inputs(_prompt(draw, *_feature_blocks(model, image))) | image


def llava_onevision_video(dtype: torch.dtype, seed: int) -> Built:
    """Two frames of 2 x 2 pooled features and the newline feature behind them."""
    draw = Draw(seed)
    model = _onevision(dtype, draw)
    inputs = _text_inputs(_prompt(draw, [VIDEO] * (2 * 4 + 1)))
    return model, inputs | {"pixel_values_videos": draw.normal(1, 2, 3, 16, 16)}


def _onevision(dtype: torch.dtype, draw: Draw) -> PreTrainedModel:
    return _model(
        "llava_onevision",
        dtype,
        draw,
        text_config={**TEXT, "model_type": "qwen2"},
        vision_config=SIGLIP,
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        image_grid_pinpoints=[[16, 16], [16, 32], [32, 16], [32, 32]],
    )


def _feature_blocks(model: PreTrainedModel, image: Inputs) -> list[list[int]]:
    """One run of placeholders per image, as long as the features the model packs for it."""
    with torch.no_grad():
        features = model.model.get_image_features(**image).pooler_output
    return [[IMAGE] * len(feature) for feature in features]


MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
QWEN_TOKENS = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": START,
    "vision_end_token_id": END,
}
QWEN_VISION = {"depth": 2, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}


def _qwen_text(model_type: str, **more: Any) -> dict[str, Any]:
    return {**TEXT, "model_type": model_type, "rope_parameters": dict(MROPE), **more}


def _qwen_inputs(draw: Draw, grids: list[tuple[int, int, int]], placeholder: int = IMAGE) -> Inputs:
    """Patches of 3 channels x 2 frames x 4 x 4 pixels for each (frames, rows, columns) grid, merged 2 x 2."""
    blocks = [[START, *[placeholder] * (t * h * w // 4), END] for t, h, w in grids]
    inputs = _text_inputs(_prompt(draw, *blocks))
    pixels, grid_name = ("pixel_values", "image_grid_thw")
    if placeholder == VIDEO:
        pixels, grid_name = ("pixel_values_videos", "video_grid_thw")
    inputs[pixels] = draw.normal(sum(t * h * w for t, h, w in grids), 3 * 2 * 4 * 4)
    inputs[grid_name] = torch.tensor(grids)
    kinds = {IMAGE: 1, VIDEO: 2}
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == placeholder).int() * kinds[placeholder]
    return inputs


def qwen2_vl(dtype: torch.dtype, seed: int) -> Built:
    draw = Draw(seed)
    vision = {**QWEN_VISION, "embed_dim": 32, "hidden_size": HIDDEN, "mlp_ratio": 2}
    text = _qwen_text("qwen2_vl_text")
    model = _model("qwen2_vl", dtype, draw, text_config=text, vision_config=vision, **QWEN_TOKENS)
    return model, _qwen_inputs(draw, [(1, 6, 8)])


def qwen2_5_vl(
    dtype: torch.dtype,
    seed: int,
    *,
    grids: list[tuple[int, int, int]] | None = None,
    placeholder: int = IMAGE,
) -> Built:
    draw = Draw(seed)
    vision = {
        **QWEN_VISION,
        "hidden_size": 32,
        "intermediate_size": 48,
        "out_hidden_size": HIDDEN,
        "window_size": 16,
        "fullatt_block_indexes": [1],
        "tokens_per_second": 2,
    }
    text = _qwen_text("qwen2_5_vl_text")
    model = _model("qwen2_5_vl", dtype, draw, text_config=text, vision_config=vision, **QWEN_TOKENS)
    return model, _qwen_inputs(draw, grids or [(1, 8, 6)], placeholder)


def qwen2_5_vl_video(dtype: torch.dtype, seed: int) -> Built:
    """Three temporal patches of 2 x 3 merged cells, one second apart."""
    model, inputs = qwen2_5_vl(dtype, seed, grids=[(3, 4, 6)], placeholder=VIDEO)
    return model, inputs | {"second_per_grid_ts": torch.tensor([1.0])}


def _qwen3_vision() -> dict[str, Any]:
    return {
        **QWEN_VISION,
        "hidden_size": 32,
        "intermediate_size": 48,
        "out_hidden_size": HIDDEN,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 1],
    }


def qwen3_vl(dtype: torch.dtype, seed: int) -> Built:
    draw = Draw(seed)
    text = _qwen_text("qwen3_vl_text")
    model = _model("qwen3_vl", dtype, draw, text_config=text, vision_config=_qwen3_vision(), **QWEN_TOKENS)
    return model, _qwen_inputs(draw, [(1, 6, 8)])


def qwen3_vl_moe(dtype: torch.dtype, seed: int) -> Built:
    """Layer 1 is dense, the others route each token to 2 of 4 experts."""
    draw = Draw(seed)
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
    text = _qwen_text("qwen3_vl_moe_text", mlp_only_layers=[1], **experts)
    vision = _qwen3_vision()
    model = _model("qwen3_vl_moe", dtype, draw, text_config=text, vision_config=vision, **QWEN_TOKENS)
    # The grouped matrix product behind the default has no float64.
    model.set_experts_implementation("eager")
    return model, _qwen_inputs(draw, [(1, 8, 6)])


def internvl(dtype: torch.dtype, seed: int) -> Built:
    """Two tiles and a thumbnail of 2 x 2 tokens each, one run of placeholders."""
    draw = Draw(seed)
    vision = {**VISION, "image_size": [16, 16], "patch_size": [4, 4]}
    text = {**TEXT, "model_type": "qwen2"}
    model = _model("internvl", dtype, draw, text_config=text, vision_config=vision, image_token_id=IMAGE)
    inputs = _text_inputs(_prompt(draw, [START, *[IMAGE] * 12, END]))
    return model, inputs | {"pixel_values": draw.normal(3, 3, 16, 16)}


def _paligemma(dtype: torch.dtype, seed: int, text: dict[str, Any]) -> Built:
    """The processor puts BOS behind the image, a newline last, and returns `labels` for a bare prompt."""
    draw = Draw(seed)
    model = _model(
        "paligemma",
        dtype,
        draw,
        text_config=text,
        vision_config=SIGLIP,
        image_token_index=IMAGE,
        projection_dim=HIDDEN,
        hidden_size=HIDDEN,
    )
    inputs = _text_inputs([*draw.words(3), *[IMAGE] * 16, BOS, *draw.words(6), NEWLINE])
    inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    inputs["labels"] = torch.full_like(inputs["input_ids"], -100)
    return model, inputs | {"pixel_values": draw.normal(1, 3, 16, 16)}


def paligemma(dtype: torch.dtype, seed: int) -> Built:
    return _paligemma(dtype, seed, {**TEXT, "model_type": "gemma", "num_key_value_heads": 1})


def paligemma2(dtype: torch.dtype, seed: int) -> Built:
    text = {
        **TEXT,
        "model_type": "gemma2",
        "query_pre_attn_scalar": HEAD_DIM,
        "attn_logit_softcapping": 3.0,
        "final_logit_softcapping": 5.0,
        "sliding_window": 16,
    }
    model, inputs = _paligemma(dtype, seed, text)
    # transformers 5.17 would load it with SDPA, which drops the attention soft cap without a word.
    model.set_attn_implementation({"text_config": "eager"})
    return model, inputs


def gemma3(dtype: torch.dtype, seed: int) -> Built:
    draw = Draw(seed)
    text = {
        **TEXT,
        "model_type": "gemma3_text",
        "num_hidden_layers": 4,
        "query_pre_attn_scalar": HEAD_DIM,
        "sliding_window": 18,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
    }
    model = _model(
        "gemma3",
        dtype,
        draw,
        text_config=text,
        vision_config=SIGLIP,
        image_token_index=IMAGE,
        boi_token_index=START,
        eoi_token_index=END,
        mm_tokens_per_image=16,
    )
    inputs = _text_inputs(_prompt(draw, [NEWLINE, START, *[IMAGE] * 16, END, NEWLINE]))
    inputs["token_type_ids"] = (inputs["input_ids"] == IMAGE).long()
    return model, inputs | {"pixel_values": draw.normal(1, 3, 16, 16)}


def _tiled(draw: Draw, rows: int, columns: int, tokens: int) -> list[int]:
    """Idefics3's image text: a fake token and a position token before every tile, the whole image last."""
    ids: list[int] = []
    for row in range(rows):
        for column in range(columns):
            ids += [FAKE, TILE + row * columns + column, *[IMAGE] * tokens]
        ids.append(NEWLINE)
    return [*ids, NEWLINE, FAKE, GLOBAL, *[IMAGE] * tokens, FAKE]


def _idefics(model_type: str, dtype: torch.dtype, seed: int, rows: int, columns: int) -> Built:
    draw = Draw(seed)
    text = {**TEXT, "model_type": "llama"}
    model = _model(
        model_type, dtype, draw, text_config=text, vision_config=VISION, image_token_id=IMAGE, scale_factor=2
    )
    inputs = _text_inputs(_prompt(draw, _tiled(draw, rows, columns, tokens=4)))
    images = rows * columns + 1
    inputs["pixel_values"] = draw.normal(1, images, 3, 16, 16)
    inputs["pixel_attention_mask"] = torch.ones(1, images, 16, 16, dtype=torch.long)
    return model, inputs


def idefics3(dtype: torch.dtype, seed: int) -> Built:
    return _idefics("idefics3", dtype, seed, rows=2, columns=2)


def smolvlm(dtype: torch.dtype, seed: int) -> Built:
    return _idefics("smolvlm", dtype, seed, rows=1, columns=2)


def mistral3(dtype: torch.dtype, seed: int) -> Built:
    """A 24 x 32 image in 4-pixel patches merged 2 x 2: 3 rows of 4 tokens, a break token behind each row."""
    draw = Draw(seed)
    vision = {**VISION, "model_type": "pixtral", "image_size": 32}
    model = _model(
        "mistral3",
        dtype,
        draw,
        text_config={**TEXT, "model_type": "mistral", "sliding_window": None},
        vision_config=vision,
        image_token_index=IMAGE,
        spatial_merge_size=2,
    )
    rows = [*[IMAGE] * 4, BREAK] * 3
    inputs = _text_inputs(_prompt(draw, [*rows[:-1], END]))
    return model, inputs | {
        "pixel_values": draw.normal(1, 3, 24, 32),
        "image_sizes": torch.tensor([[24, 32]]),
    }


def aya_vision(dtype: torch.dtype, seed: int) -> Built:
    """Two tiles and the global view of 2 x 2 tokens, each behind a token of its own."""
    draw = Draw(seed)
    text = {
        **TEXT,
        "model_type": "cohere2",
        "num_hidden_layers": 4,
        "sliding_window": 18,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
    }
    model = _model("aya_vision", dtype, draw, text_config=text, vision_config=SIGLIP, image_token_index=IMAGE)
    tiles = [START, TILE, *[IMAGE] * 4, TILE + 1, *[IMAGE] * 4, GLOBAL, *[IMAGE] * 4, END]
    return model, _text_inputs(_prompt(draw, tiles)) | {"pixel_values": draw.normal(3, 3, 16, 16)}


FAMILIES: dict[str, Callable[[torch.dtype, int], Built]] = {
    "llava": llava,
    "bakllava": bakllava,
    "llava_next": llava_next,
    "llava_onevision": llava_onevision,
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "qwen3_vl_moe": qwen3_vl_moe,
    "internvl": internvl,
    "paligemma": paligemma,
    "paligemma2": paligemma2,
    "gemma3": gemma3,
    "idefics3": idefics3,
    "smolvlm": smolvlm,
    "mistral3": mistral3,
    "aya_vision": aya_vision,
}

VARIANTS: dict[str, Callable[[torch.dtype, int], Built]] = {
    "llava_two_images": lambda dtype, seed: llava(dtype, seed, images=2),
    "qwen2_5_vl_two_images": lambda dtype, seed: qwen2_5_vl(dtype, seed, grids=[(1, 4, 6), (1, 6, 4)]),
    "qwen2_5_vl_video": qwen2_5_vl_video,
    "llava_onevision_video": llava_onevision_video,
}


def build(family: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> Built:
    """(model in eval mode, the processor's output for one prompt); the same for a seed in every dtype."""
    return (FAMILIES | VARIANTS)[family](dtype, seed)


@torch.no_grad()
def caps_logits(model: PreTrainedModel, inputs: Inputs) -> bool:
    """Whether no logit leaves the config's cap: PaliGemma 2 has one, which transformers 5.17 does not apply."""
    return bool(model(**inputs).logits.abs().max() <= model.config.get_text_config().final_logit_softcapping)

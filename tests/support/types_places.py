"""The types with their real image processors: small models with towers of their default sizes and random weights."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import transformers
import types_beyond
import types_explained
import types_mixed
import types_zoo
import zoo
from PIL import Image
from random_towers import drawn
from torch import Tensor
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.utils import is_torchvision_available

from dexar_fast import Explainer
from dexar_fast.generation.places import placing
from dexar_fast.prompt import request
from dexar_fast.prompt.remade.seen import placed
from dexar_fast.vision.families import FAMILIES
from dexar_fast.vision.geometry import CHECKED, MEASURED, Layout
from dexar_fast.vision.grid import Size

WHOLE = ("image_size", "patch_size", "num_position_embeddings")  # what is left at the config's default
LISTED = ("num_local_patches", "patches_grid")  # by Unlimited OCR, whatever its processor is asked for
UNSAID = ("num_patches", "num_soft_tokens_per_image", "rows", "cols", "grids")


@dataclass(frozen=True)
class Sizes:
    """What makes a type's config and its image processor fit each other."""

    config: dict[str, Any] = field(default_factory=dict)
    processor: dict[str, Any] = field(default_factory=dict)
    like: str | None = None  # the type whose processor it takes, where none is mapped to it
    small: bool = False  # its tower is as small as in the table of types: one of its default size is too large here


def vision(size: Any, **more: Any) -> dict[str, Any]:
    return {"vision_config__image_size": size, **more}


def square(side: int) -> dict[str, Any]:
    return {"size": {"height": side, "width": side}}


GEMMA4 = {
    "model_type": "gemma4_vision",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
GEMMA4_UNIFIED = {"model_type": "gemma4_unified_vision", "mm_embed_dim": 64, "output_proj_dims": 64}
PINPOINTS: dict[str, Any] = {"image_grid_pinpoints": [[16, 16], [16, 32], [32, 16], [32, 32]]}
SIXTEEN = Sizes(processor={"patch_size": 16})
TYPES: dict[str, Sizes] = {
    "aria": Sizes(vision(980, projector_patch_to_query_dict={"900": 4, "1225": 4, "4900": 4})),
    "cohere2_vision": Sizes(vision(512)),
    "cohere_compass": SIXTEEN,
    "cosmos3_edge": Sizes(),
    "cosmos3_omni": SIXTEEN,
    "deepseek_ocr2": Sizes(processor={**square(64), "tile_size": 64}, small=True),
    "deepseek_vl": Sizes(vision(384)),
    "dots3_note": Sizes(processor={"temporal_patch_size": 1}),
    "ernie4_5_vl_moe": Sizes(),
    "exaone4_5": Sizes(),
    "gemma4": Sizes({"vision_config": GEMMA4}),
    "gemma4_unified": Sizes({"vision_config": GEMMA4_UNIFIED}),
    "glm46v": Sizes(),
    "glm4v": Sizes(),
    "glm4v_moe": Sizes(like="glm4v"),
    "glm5_next": Sizes(),
    "glm_ocr": Sizes(like="glm46v"),
    "glmga": Sizes(),
    "got_ocr2": Sizes(processor=square(1024)),
    "granite4_vision": Sizes(
        PINPOINTS, {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}, **PINPOINTS}, small=True
    ),
    "granite_docling": Sizes(vision(512, vision_config__patch_size=16)),
    "hunyuan_vl": Sizes(),
    "hy_v4_vl": Sizes(),
    "hyperclovax_vision_v2": Sizes(),
    "idefics2": Sizes(),
    "inkling2": Sizes(),
    "inkling2_loop": Sizes(),
    "inkling_mm_model": Sizes(),
    "janus": Sizes(),
    "kimi_k25": Sizes(),
    "lfm2_vl": Sizes(),
    "lfm3_vl": SIXTEEN,
    "lighton_ocr": Sizes(),
    "minicpm_ocr": SIXTEEN,
    "minicpmv4_6": SIXTEEN,
    "minicpmv4_7": SIXTEEN,
    "minimax_m3_vl": Sizes(),
    "mistral_large4": Sizes(),
    "molmo2": Sizes(vision([378, 378], vision_config__num_position_embeddings=729)),
    "muse_glimmer": Sizes(),
    "muse_spark": Sizes(),
    "nemotron_h_omni": Sizes({"vision_config__video_temporal_patch_size": 2}),
    "ovis2": Sizes(vision(384)),
    "paddleocr_vl": Sizes(),
    "pp_chart2table": Sizes(),
    "qianfan_ocr": Sizes(
        vision([448, 448], vision_config__patch_size=[14, 14]), {**square(448), "crop_to_patches": True}
    ),
    "qwen2_5_omni_thinker": Sizes(like="qwen2_vl"),
    "qwen3_5": SIXTEEN,
    "qwen3_5_moe": SIXTEEN,
    "qwen3_omni_moe_thinker": Sizes(processor={"patch_size": 16}, like="qwen2_vl"),
    "qwen4_exp": SIXTEEN,
    "step3p7": Sizes(vision(728)),
    "unlimited_ocr": Sizes(processor={**square(64), "tile_size": 64}, small=True),
    "video_llama_3": SIXTEEN,
    "video_llava": Sizes(),
    "vipllava": Sizes(),
}


QUERIES = "none: learned queries"
TOLD = {
    **dict.fromkeys(("blip-2", "instructblip", "instructblipvideo", "kosmos-2", "kosmos-2.5"), QUERIES),
    **dict.fromkeys(("gemma4_unified", "unlimited_ocr"), "measured"),  # by processors that need torchvision
    **dict.fromkeys(("gemma3n", "perception_lm"), "untested: its tower needs timm"),
    "florence2": "none: convolutions mix its tokens",
    "fuyu": "untested: its combined processor cuts the patches",
    "idefics": "untested: its image processor returns bare pixels",
    "pp_formulanet": "untested: its processor crops by content",
}
"""What is not found out here, by the same words."""


def image_processor(model_type: str) -> Any:
    """A class, or None where none can be made here."""
    kinds = IMAGE_PROCESSOR_MAPPING_NAMES.get(TYPES[model_type].like or model_type, {})
    name = kinds.get("torchvision" if is_torchvision_available() else "pil")
    return getattr(transformers, name or kinds.get("pil", ""), None)


def here() -> list[str]:
    """The types that a processor can be made for."""
    known = types_explained.EXPLAINED | types_mixed.MIXED
    return [name for name in TYPES if name in known and image_processor(name) is not None]


def place(model_type: str) -> str:
    """How the places of a type's visual tokens are known, as the table of types says it."""
    if model_type in FAMILIES:
        return "own layout"
    if model_type in TOLD:
        return TOLD[model_type]
    if model_type in {name.split("/")[0] for name in types_beyond.BEYOND}:
        return "measured"  # by tests/generation/test_places_elsewhere.py
    if model_type not in here():
        return "untested"
    found = Asked.of(model_type, [(640, 480)]).found().how
    return {CHECKED: "declared", MEASURED: "measured"}.get(found, QUERIES)


@dataclass(frozen=True)
class Asked:
    """A type's model, and what its processor makes of pictures."""

    explainer: Explainer
    request: request.Request
    images: list[Image.Image]
    declared: Layout

    @classmethod
    def of(cls, model_type: str, sizes: Sequence[Size]) -> Asked:
        model, processor = build(model_type), image_processor(model_type)(**TYPES[model_type].processor)
        images = [Image.effect_noise(size, 80).convert("RGB") for size in sizes]
        found = processor(images, return_tensors="pt")
        made = {k: v for k, v in found.items() if isinstance(v, Tensor) or k in LISTED}
        asked = request.given(inputs(model, made), images)
        explainer = Explainer(model, SimpleNamespace(image_processor=processor))
        return cls(explainer, asked, *placed(model.config, explainer.processor, asked))

    def found(self) -> Layout:
        """What comes of measuring, whether the family is known or not."""
        found = placing.measured(self.explainer, self.request, self.images, self.declared)
        return placing._layout(self.declared, found)


def build(model_type: str) -> Any:
    kind = (types_explained.EXPLAINED | types_mixed.MIXED)[model_type]
    left, sizes = kind.changes, types_zoo.VISION
    if not TYPES[model_type].small:
        left = {name: value for name, value in left.items() if not any(each in name for each in (*WHOLE, "grid"))}
        sizes = {name: value for name, value in sizes.items() if name not in WHOLE}
    with patch.object(types_zoo, "VISION", sizes):
        config = types_zoo.config_of(model_type, **{**left, **TYPES[model_type].config})
    config.get_text_config().max_position_embeddings = 8192
    return drawn(types_zoo.model_of(config, torch.float32))


def inputs(model: Any, made: dict[str, Tensor]) -> dict[str, Tensor]:
    """A prompt with as many placeholders as the model makes features of these pictures."""
    taken = inspect.signature(model.forward).parameters
    image = model.config.image_token_id
    runs = [token for count in counts(model, made) for token in (11, zoo.START, *[image] * count, zoo.END, 12)]
    ids = torch.tensor([[zoo.BOS, *runs, 13]])
    visual = (ids == image).long()
    kinds = {name: visual for name in ("mm_token_type_ids", "moe_mm_token_type_ids") if name in taken}
    kept = {name: value for name, value in made.items() if name in taken}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **kept, **kinds}


@torch.no_grad()
def counts(model: Any, made: dict[str, Tensor]) -> list[int]:
    """How many features the model makes of each picture, or of all where it does not part them."""
    function = model.get_image_features if hasattr(model, "get_image_features") else model.model.get_image_features
    taken = inspect.signature(function).parameters
    wanted = {k: v for k, v in made.items() if k in taken or ("kwargs" in taken and k not in UNSAID)}
    return [part.shape[:-1].numel() for part in _parts(function(**wanted))]


def _parts(found: Any) -> Iterator[Tensor]:
    deeper = getattr(found, "deepstack_features", None)  # Granite 4 adds features of several depths, all of one shape
    found = deeper[0][-1] if deeper and found.pooler_output is None else getattr(found, "pooler_output", found)
    for part in [found] if isinstance(found, Tensor) else found:
        yield from [part] if isinstance(part, Tensor) else _parts(part)


def cells(layout: Layout, sizes: Sequence[Size]) -> dict[int, Any]:
    """Of each visual token its image, and left, top, right and bottom of its cell."""
    found: dict[int, Any] = {}
    for grid in layout.grids:
        left, top, right, bottom = grid.box or (0, 0, *sizes[grid.image])
        x, y = np.linspace(left, right, grid.columns + 1), np.linspace(top, bottom, grid.rows + 1)
        for (row, column), token in np.ndenumerate(grid.cells):
            found[int(token)] = grid.image, np.array([x[column], y[row], x[column + 1], y[row + 1]])
    return found

"""How each model family lays visual tokens over its images (METHOD.md section 6): the table of them.

A family returns its images and its videos as blocks of visual tokens. What depends on the processor's settings is read
from the processor's output where possible, and then checked against the number of visual tokens.
"""

from __future__ import annotations

from dexar_fast.vision.anyres import llava_next, llava_onevision
from dexar_fast.vision.blocks import Blocks, Family, Prompt
from dexar_fast.vision.patches import coded, patch_grids, pixtral
from dexar_fast.vision.squares import (
    one_square,
    pan_and_scan,
    rows_of_tiles_and_thumbnail,
    shown,
    stretched,
    tiled,
    tiles_and_thumbnail,
)


def _llava(prompt: Prompt) -> Blocks:
    tower = getattr(prompt.config.vision_config, "model_type", None)
    return pixtral(prompt) if tower == "pixtral" else one_square(shown)(prompt)


FAMILIES: dict[str, Family] = {
    "llava": _llava,
    "vipllava": one_square(shown),
    "fast_vlm": one_square(shown),
    "deepseek_vl": one_square(shown),
    "deepseek_vl_hybrid": one_square(shown),
    "janus": one_square(shown),
    "paligemma": one_square(stretched),
    "pp_chart2table": one_square(stretched),
    "llava_next": llava_next,
    "llava_next_video": llava_next,
    "llava_onevision": llava_onevision,
    "qwen2_vl": patch_grids,
    "qwen2_5_vl": patch_grids,
    "qwen3_vl": patch_grids,
    "qwen3_vl_moe": patch_grids,
    "internvl": tiled(tiles_and_thumbnail),
    "aya_vision": tiled(tiles_and_thumbnail),
    "gemma3": tiled(pan_and_scan),
    "shieldgemma2": tiled(pan_and_scan),
    "idefics3": tiled(rows_of_tiles_and_thumbnail),
    "smolvlm": tiled(rows_of_tiles_and_thumbnail),
    "mistral3": pixtral,
    "chameleon": one_square(shown),
    "emu3": coded("vq_config", newline=True),
    "apertus1p5": coded("vision_config"),
}
"""model_type -> its layout."""

CODED = ("chameleon", "emu3", "apertus1p5")
"""Those whose visual tokens are codes: norms over all of the image and choices stand between them and its parts."""

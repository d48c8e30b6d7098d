"""Tiny random models that read videos, with the real processors of their families, which need torchvision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import transformers
import zoo
from PIL import Image
from processors import around, token, tokenizer

Family = tuple[Any, Any, str, str]  # model, processor, and what stands for an image and for a video in a prompt

TEXT = {**zoo.TEXT, "vocab_size": len(tokenizer())}
IDS = {"image_token_id": token("<image>"), "video_token_id": token("<video>")}
INDICES = {name.replace("_id", "_index"): value for name, value in IDS.items()}
SQUARE = {"size": {"height": 16, "width": 16}}
SHORT = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
LONG = {"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 16}}
PINPOINTS: dict[str, Any] = {"image_grid_pinpoints": [[16, 16]]}


def _model(kind: str, **config: Any) -> Any:
    return zoo._model(kind, torch.float32, zoo.Draw(0), **config)


def _qwen(kind: str) -> Family:
    name = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL"}[kind]
    reader = getattr(transformers, f"{'Qwen3VL' if kind == 'qwen3_vl' else 'Qwen2VL'}VideoProcessor")
    images = transformers.Qwen2VLImageProcessor(size={"shortest_edge": 16, "longest_edge": 1024}, patch_size=4)
    longest = 4096 if kind == "qwen3_vl" else 384  # of the whole video, or of a frame
    video = reader(size={"shortest_edge": 16, "longest_edge": longest}, patch_size=4, temporal_patch_size=2)
    processor = getattr(transformers, f"{name}Processor")(images, tokenizer(), video)
    vision = {
        "qwen2_vl": {**zoo.QWEN_VISION, "embed_dim": 32, "hidden_size": zoo.HIDDEN, "mlp_ratio": 2},
        "qwen2_5_vl": {**zoo._qwen3_vision(), "window_size": 16, "fullatt_block_indexes": [1]},
        "qwen3_vl": zoo._qwen3_vision(),
    }[kind]
    text = {**zoo._qwen_text(f"{kind}_text"), "vocab_size": len(tokenizer())}
    ends = {f"vision_{end}_token_id": token(f"<|vision_{end}|>") for end in ("start", "end")}
    model = _model(kind, text_config=text, vision_config=vision, **ends, **IDS)
    return model, processor, around("<image>"), around("<video>")


def _onevision() -> Family:
    processor = transformers.LlavaOnevisionProcessor(
        transformers.LlavaOnevisionImageProcessor(**SQUARE, **PINPOINTS),
        tokenizer(),
        transformers.LlavaOnevisionVideoProcessor(**SQUARE),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
    )
    text = {**TEXT, "model_type": "qwen2"}
    model = _model("llava_onevision", text_config=text, vision_config=zoo.SIGLIP, **INDICES, **PINPOINTS)
    return model, processor, "<image>", "<video>"


def _llava_next_video() -> Family:
    """Its processor crops the middle square of each frame."""
    processor = transformers.LlavaNextVideoProcessor(
        transformers.LlavaNextVideoVideoProcessor(**SHORT),
        transformers.LlavaNextImageProcessor(**SHORT, **PINPOINTS),
        tokenizer(),
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    text = {**TEXT, "model_type": "llama"}
    model = _model("llava_next_video", text_config=text, vision_config=zoo.CLIP, **INDICES, **PINPOINTS)
    return model, processor, "<image>", "<video>"


def _smolvlm() -> Family:
    """Frames stand as images, under their id and their name."""
    processor = transformers.SmolVLMProcessor(
        transformers.SmolVLMImageProcessor(**LONG),
        tokenizer(),
        transformers.SmolVLMVideoProcessor(**LONG),
        image_seq_len=4,
    )
    config = {"text_config": {**TEXT, "model_type": "llama"}, "vision_config": zoo.VISION, "scale_factor": 2}
    return _model("smolvlm", **config, image_token_id=token("<image>")), processor, "<image>", "<video>"


def _internvl() -> Family:
    """The same, beside pictures that are cut into tiles."""
    processor = transformers.InternVLProcessor(
        transformers.GotOcr2ImageProcessor(**SQUARE, min_patches=1, max_patches=4),
        tokenizer(),
        transformers.InternVLVideoProcessor(**SQUARE),
        image_seq_length=4,
    )
    vision = {**zoo.VISION, "image_size": [16, 16], "patch_size": [4, 4]}
    config = {"text_config": {**TEXT, "model_type": "qwen2"}, "vision_config": vision, "downsample_ratio": 0.5}
    return _model("internvl", **config, image_token_id=token("<IMG_CONTEXT>")), processor, "<IMG_CONTEXT>", "<video>"


def _glm4v() -> Family:
    """Frames carry the image id, and two are a step."""
    images = transformers.Glm4vImageProcessor(size={"shortest_edge": 16, "longest_edge": 1024}, patch_size=4)
    video = transformers.Glm4vVideoProcessor(size={"shortest_edge": 16, "longest_edge": 4096}, patch_size=4)
    processor = transformers.Glm4vProcessor(images, tokenizer(), video)
    vision = {**zoo.QWEN_VISION, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "image_size": 16}
    vision |= {"out_hidden_size": zoo.HIDDEN, "patch_size": 4}
    text = {**zoo._qwen_text("glm4v_text"), "vocab_size": len(tokenizer())}
    watched = "<|begin_of_video|><video><|end_of_video|>"
    return _model("glm4v", text_config=text, vision_config=vision, **IDS), processor, "<image>", watched


def _video_llava() -> Family:
    """Each frame keeps its class token, which has no place."""
    processor = transformers.VideoLlavaProcessor(
        transformers.VideoLlavaImageProcessor(**SHORT),
        transformers.VideoLlavaVideoProcessor(**SHORT),
        tokenizer(),
        patch_size=4,
    )
    text = {**TEXT, "model_type": "llama"}
    model = _model("video_llava", text_config=text, vision_config=zoo.CLIP, **INDICES)
    return model, processor, "<image>", "<video>"


FAMILIES: dict[str, Callable[[], Family]] = {
    "qwen2_vl": lambda: _qwen("qwen2_vl"),
    "qwen2_5_vl": lambda: _qwen("qwen2_5_vl"),
    "qwen3_vl": lambda: _qwen("qwen3_vl"),
    "llava_onevision": _onevision,
    "llava_next_video": _llava_next_video,
    "smolvlm": _smolvlm,
    "internvl": _internvl,
    "glm4v": _glm4v,
    "video_llava": _video_llava,
}


def stacked(frames: Sequence[Image.Image]) -> torch.Tensor:
    """A video as processors take it: uint8 [frames, channels, height, width]."""
    return torch.from_numpy(np.stack([np.asarray(frame) for frame in frames])).permute(0, 3, 1, 2)


def watched(family: Family, *videos: Sequence[Image.Image], images: Sequence[Image.Image] = (), **settings: Any) -> Any:
    """What the real processor makes of images, then videos, and a question."""
    _, processor, image, video = family
    text = " ".join([*[image] * len(images), *[video] * len(videos), "What is it?"])
    given = {"images": list(images)} if images else {}
    called = {"return_tensors": "pt", "do_sample_frames": False, **settings}
    return processor(videos=[[stacked(frames) for frames in videos]], text=text, **given, **called)

"""Every supported family with the sizes of its released checkpoints, built without a download.

A `Family` holds a real config and a real image processor; its prompt is expanded by the real combined processor where
this machine can construct one, else by the rule of that processor's source, written out here. The models have a few
weights only and are linear (see linear_vision.py): they tell which pixels each visual token received.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import small_llava
import torch
import transformers
from linear_vision import NEWLINE, colours, linearise
from PIL import Image
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedTokenizerFast

Inputs = Mapping[str, Any]
Images = Sequence[Image.Image]
Process = Callable[[Images], Inputs]
Features = Callable[[Inputs], Tensor]

NAMED = {
    "image_token": "<image>",
    "video_token": "<video>",
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "img_line_break_token": "<|IMG_LINE_BREAK|>",
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
OTHERS = [
    "[IMG]",
    "[IMG_BREAK]",
    "[IMG_END]",
    "<fake_token_around_image>",
    "<global-img>",
    "<end_of_utterance>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
    "<|START_OF_IMG|>",
    "<|END_OF_IMG|>",
    "<|IMG_PATCH|>",
    *(f"TILE_{tile}" for tile in range(1, 13)),
    "TILE_GLOBAL",
    *(f"<|{end}_of_{what}|>" for what in ("image", "video") for end in ("begin", "end")),
]
CLIP_336 = {"model_type": "clip_vision_model", "image_size": 336, "patch_size": 14}
SIGLIP_384 = {"model_type": "siglip_vision_model", "image_size": 384, "patch_size": 14, "vision_use_head": False}
PATCHES = [384, 768, 1152, 1536, 1920, 2304]
PINPOINTS_NEXT = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
PINPOINTS_ONEVISION = [[height, width] for height in PATCHES for width in PATCHES]
FULL: dict[str, Any] = {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"}
TINY = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "num_hidden_layers": 2}


@lru_cache
def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes and the special tokens of all families; it knows the named ones as its attributes, as theirs do."""
    made = PreTrainedTokenizerFast(
        tokenizer_object=small_llava.byte_level().backend_tokenizer, **small_llava.SPECIAL, extra_special_tokens=NAMED
    )
    made.add_tokens(OTHERS, special_tokens=True)
    return made


def token(text: str) -> int:
    return tokenizer().get_vocab()[text]


@dataclass(frozen=True)
class Family:
    """One family, ready to process images and to tell which pixels a visual token received.

    Attributes:
        model: linear; its `config` is the one under test.
        processor: what `geometry.layout` gets.
        process: images (or the frames of a video) to what the model takes.
        features: the same inputs to the mean colour [N] of each visual token.
        pixels: side of a cell in pixels that the model sees.
        stages: resizes between the original and the pixels the model sees.
        slack: error in cells that the geometry documents for this family, on top of the kernel's.
        blind: without the images' sizes there is no telling where the tiles lie.
    """

    name: str
    model: Any
    processor: Any
    process: Process
    features: Features
    pixels: int
    stages: int = 1
    slack: float = 0.0
    blind: bool = False

    @property
    def config(self) -> Any:
        return self.model.config

    def contrast(self, difference: int) -> float:
        """How much a difference of grey levels changes the mean colour after normalisation."""
        deviations = self.processor.image_processor.image_std
        return difference / 255 * sum(1 / one for one in deviations) / len(deviations)


def build(kind: str, vision: dict[str, Any], text: str = "llama", **config: Any) -> Any:
    """A linear model of a family; vision sizes are real, all widths tiny."""
    words = {"model_type": text, "vocab_size": len(tokenizer()), "num_key_value_heads": 1, "head_dim": 8, **TINY}
    made = AutoConfig.for_model(kind, vision_config=TINY | vision, text_config=words, **config)
    return linearise(AutoModelForImageTextToText.from_config(made))


def image_features(model: Any, *names: str) -> Features:
    """What the model makes of the named inputs."""
    return lambda inputs: colours(model.get_image_features(**{n: inputs[n] for n in names if n in inputs}))


def video_features(model: Any, pixels: str, *names: str) -> Features:
    """What the model makes of a video; of its pixels by position: LLaVA-OneVision named them otherwise before 5.24."""
    return lambda inputs: colours(model.get_video_features(inputs[pixels], **{n: inputs[n] for n in names}))


def ask(processor: Any, placeholder: str, **settings: Any) -> Process:
    """The real processor, all images in front of the question."""

    def process(images: Images) -> Inputs:
        text = f"{placeholder} " * len(images) + "What is it?"
        return processor(images=list(images), text=text, return_tensors="pt", **settings)

    return process


def expand(
    image_processor: Any, placeholders: Callable[[Inputs], list[str]], unused: Sequence[str] = (), **settings: Any
) -> Process:
    """The image processor's output less what is unused, and the prompt its combined processor would have written."""

    def process(images: Images) -> Inputs:
        inputs = image_processor(list(images), return_tensors="pt", **settings)
        kept = {name: value for name, value in inputs.items() if name not in unused}
        return {**kept, "input_ids": written(placeholders(inputs))}

    return process


def written(placeholders: Sequence[str]) -> Tensor:
    """[1, P] a prompt with the expanded placeholders in front."""
    return tokenizer()(" ".join([*placeholders, "What is it?"]), return_tensors="pt").input_ids


# One square grid


def llava_family(name: str, kind: str = "llava", text: str = "llama", layers: int = 2) -> Family:
    model = build(kind, CLIP_336 | {"num_hidden_layers": layers}, text, image_token_id=token("<image>"))
    images = transformers.CLIPImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    processor = transformers.LlavaProcessor(
        images, tokenizer(), patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )
    return Family(name, model, processor, ask(processor, "<image>"), image_features(model, "pixel_values"), 14)


def llava() -> Family:
    return llava_family("llava")


def bakllava() -> Family:
    return llava_family("bakllava", text="mistral")


def vipllava() -> Family:
    """Twelve layers, for it reads five of them."""
    return llava_family("vipllava", "vipllava", layers=12)


def llava_siglip() -> Family:
    """llava-interleave: 27 patches of 14 pixels leave out the last 6 of 384."""
    model = build("llava", SIGLIP_384, image_token_id=token("<image>"), **FULL)
    images = transformers.SiglipImageProcessor(size={"height": 384, "width": 384})
    processor = transformers.LlavaProcessor(
        images, tokenizer(), patch_size=14, vision_feature_select_strategy="full", num_additional_image_tokens=0
    )
    features = image_features(model, "pixel_values")
    return Family("llava_siglip", model, processor, ask(processor, "<image>"), features, 14)


def paligemma() -> Family:
    vision = SIGLIP_384 | {"image_size": 224}
    model = build("paligemma", vision, "gemma", image_token_id=token("<image>"), projection_dim=8, hidden_size=8)
    images: Any = transformers.SiglipImageProcessor(size={"height": 224, "width": 224})
    images.image_seq_length = 256
    processor = transformers.PaliGemmaProcessor(images, tokenizer())
    return Family("paligemma", model, processor, ask(processor, "<image>"), image_features(model, "pixel_values"), 14)


def gemma3(name: str = "gemma3", **settings: Any) -> Family:
    model = build(
        "gemma3",
        SIGLIP_384 | {"image_size": 896},
        "gemma3_text",
        image_token_id=token("<image>"),
        boi_token_index=token("<start_of_image>"),
        eoi_token_index=token("<end_of_image>"),
        mm_tokens_per_image=256,
    )
    images = transformers.Gemma3ImageProcessor(size={"height": 896, "width": 896})
    processor = transformers.Gemma3Processor(images, tokenizer(), image_seq_length=256)
    process = ask(processor, "<start_of_image>", **settings)
    return Family(name, model, processor, process, image_features(model, "pixel_values"), 56)


def gemma3_crops() -> Family:
    return replace(gemma3("gemma3_crops", do_pan_and_scan=True), blind=True)


# A base grid and a tiled one, its rows ended by newlines


def llava_next() -> Family:
    model = build("llava_next", CLIP_336, image_token_id=token("<image>"), image_grid_pinpoints=PINPOINTS_NEXT)
    images = transformers.LlavaNextImageProcessor(
        size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}, image_grid_pinpoints=PINPOINTS_NEXT
    )
    processor = transformers.LlavaNextProcessor(
        images, tokenizer(), patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )
    features = image_features(model, "pixel_values", "image_sizes")
    return Family("llava_next", model, processor, ask(processor, "<image>"), features, 14, stages=2)


def onevision(nested: bool = False) -> Family:
    """All images of one prompt at 384 x 384 (nested), or each of them tiled as if it were alone.

    The tiled grid is taken as uniform though a tile's 27 patches cover 378 of its 384 pixels, and beyond nine tiles'
    worth of patches it is sampled down bilinearly: half a cell.
    """
    images = transformers.LlavaOnevisionImageProcessor(size={"height": 384, "width": 384})
    processor = onevision_processor(images)
    names = "pixel_values", "image_sizes", "batch_num_images"

    def process(pictures: Images) -> Inputs:
        given: Any = [list(pictures)] if nested else list(pictures)
        inputs = dict(images(given, return_tensors="pt"))
        counts = [onevision_count(processor, inputs, n) for n in range(len(pictures))]
        return {**inputs, "input_ids": written(["<image>" * count for count in counts])}

    model = onevision_model()
    name = "onevision_nested" if nested else "onevision"
    return Family(
        name, model, SimpleNamespace(image_processor=images), process, image_features(model, *names), 14, 2, 0.5
    )


def onevision_nested() -> Family:
    return onevision(nested=True)


def onevision_model() -> Any:
    names: dict[str, Any] = {"image_token_id": token("<image>"), "video_token_id": token("<video>")}
    return build("llava_onevision", SIGLIP_384, image_grid_pinpoints=PINPOINTS_ONEVISION, **names, **FULL)


def onevision_processor(images: Any) -> Any:
    """As much of the combined processor as counts placeholders: all of it needs a video processor."""
    made = object.__new__(transformers.LlavaOnevisionProcessor)
    made.image_processor, made.num_image_tokens, made.vision_aspect_ratio = images, 729, "anyres_max_9"
    return made


def onevision_count(processor: Any, inputs: Inputs, image: int) -> int:
    if max(int(n) for n in inputs["batch_num_images"]) > 1:
        return processor.num_image_tokens + 1
    height, width = inputs["image_sizes"][image].tolist()
    return processor._get_number_of_features(height, width, 384, 384)


def onevision_video() -> Family:
    """Frames of 27 x 27 patches, pooled bilinearly to 14 x 14 without antialiasing: a quarter of a cell."""
    images = transformers.LlavaOnevisionImageProcessor(size={"height": 384, "width": 384})
    plain = transformers.SiglipImageProcessor(
        size={"height": 384, "width": 384}, image_mean=images.image_mean, image_std=images.image_std, resample=3
    )

    def process(frames: Images) -> Inputs:
        pixels = plain(list(frames), return_tensors="pt").pixel_values[None]
        return {"pixel_values_videos": pixels, "input_ids": written(["<video>" * (len(frames) * 196 + 1)])}

    model = onevision_model()
    packed = video_features(model, "pixel_values_videos")

    def features(inputs: Inputs) -> Tensor:
        """With the newline behind the frames, which the model's forward adds itself before transformers 5.24."""
        made = packed(inputs)
        newline = made.new_full((int(len(made) % 196 == 0),), NEWLINE)
        return torch.cat([made, newline])

    return Family("onevision_video", model, SimpleNamespace(image_processor=images), process, features, 28, 1, 0.25)


# Qwen


def qwen_model(kind: str, patch: int) -> Any:
    vision: dict[str, Any] = {"depth": 2, "num_heads": 1, "patch_size": patch, "spatial_merge_size": 2}
    vision |= {"embed_dim": 8, "hidden_size": 8} if kind == "qwen2_vl" else {"out_hidden_size": 8}
    vision |= {"deepstack_visual_indexes": []} if kind == "qwen3_vl" else {}
    text = {"qwen2_vl": "qwen2_vl_text", "qwen2_5_vl": "qwen2_5_vl_text", "qwen3_vl": "qwen3_vl_text"}[kind]
    names: dict[str, Any] = {"image_token_id": token("<image>"), "video_token_id": token("<video>")}
    return build(kind, vision, text, vision_start_token_id=token("<|vision_start|>"), **names)


def qwen_images(kind: str) -> Any:
    if kind != "qwen3_vl":
        return transformers.Qwen2VLImageProcessor(size={"shortest_edge": 3136, "longest_edge": 12845056})
    halves = [0.5, 0.5, 0.5]
    size = {"shortest_edge": 65536, "longest_edge": 16777216}
    return transformers.Qwen2VLImageProcessor(size=size, patch_size=16, image_mean=halves, image_std=halves)


def qwen(kind: str) -> Family:
    images = qwen_images(kind)
    process = expand(
        images, lambda inputs: [around("<image>" * (int(grid.prod()) // 4)) for grid in inputs["image_grid_thw"]]
    )
    model = qwen_model(kind, images.patch_size)
    features = image_features(model, "pixel_values", "image_grid_thw")
    return Family(kind, model, SimpleNamespace(image_processor=images), process, features, 2 * images.patch_size)


def around(tokens: str) -> str:
    return f"<|vision_start|>{tokens}<|vision_end|>"


def qwen2_vl() -> Family:
    return qwen("qwen2_vl")


def qwen2_5_vl() -> Family:
    return qwen("qwen2_5_vl")


def qwen3_vl() -> Family:
    return qwen("qwen3_vl")


def qwen_video(kind: str) -> Family:
    """One token is a block of patches of two frames; the last of an odd number is repeated.

    Qwen3-VL writes a time before each pair of frames; the others write all of a video's tokens in one run.
    """
    images = qwen_images(kind)

    def process(frames: Images) -> Inputs:
        found = [images(frame, return_tensors="pt") for frame in frames]
        found += found[-1:] * (len(found) % 2)
        slots = [one.pixel_values.unflatten(1, (3, 2, images.patch_size**2))[:, :, 0] for one in found]
        pairs = [torch.stack(pair, 2).flatten(1) for pair in zip(slots[::2], slots[1::2], strict=True)]
        grid = found[0].image_grid_thw.clone()
        grid[0, 0] = len(pairs)
        run = "<video>" * (int(grid[0, 1:].prod()) // 4)
        timed = " ".join(f"<{second}.0 seconds>{around(run)}" for second in range(len(pairs)))
        text = timed if kind == "qwen3_vl" else around(run * len(pairs))
        return {"pixel_values_videos": torch.cat(pairs), "video_grid_thw": grid, "input_ids": written([text])}

    model = qwen_model(kind, images.patch_size)
    features = video_features(model, "pixel_values_videos", "video_grid_thw")
    processor = SimpleNamespace(image_processor=images)
    return Family(f"{kind}_video", model, processor, process, features, 2 * images.patch_size)


def qwen2_vl_video() -> Family:
    return qwen_video("qwen2_vl")


def qwen2_5_vl_video() -> Family:
    return qwen_video("qwen2_5_vl")


def qwen3_vl_video() -> Family:
    return qwen_video("qwen3_vl")


# Tiles of fixed grids and a thumbnail


def internvl() -> Family:
    vision = {"image_size": [448, 448], "patch_size": [14, 14]}
    model = build("internvl", vision, "qwen2", image_token_id=token("<IMG_CONTEXT>"), downsample_ratio=0.5)
    images = transformers.GotOcr2ImageProcessor(
        size={"height": 448, "width": 448}, crop_to_patches=True, min_patches=1, max_patches=12
    )

    def runs(inputs: Inputs) -> list[str]:
        return [f"<img>{'<IMG_CONTEXT>' * (256 * int(tiles))}</img>" for tiles in inputs["num_patches"]]

    process = expand(images, runs, unused=("num_patches",))
    features = image_features(model, "pixel_values")
    return Family("internvl", model, SimpleNamespace(image_processor=images), process, features, 28, 2, blind=True)


def idefics3() -> Family:
    vision = {"image_size": 364, "patch_size": 14}
    model = build("idefics3", vision, image_token_id=token("<image>"), scale_factor=2)
    images = transformers.Idefics3ImageProcessor(size={"longest_edge": 1456}, max_image_size={"longest_edge": 364})
    processor = transformers.Idefics3Processor(images, tokenizer(), image_seq_len=169)
    features = image_features(model, "pixel_values", "pixel_attention_mask")
    return Family("idefics3", model, processor, ask(processor, "<image>"), features, 28, 3, blind=True)


def smolvlm() -> Family:
    """Its tiles and placeholders are Idefics3's; its own combined processor wants a video processor."""
    vision = {"image_size": 512, "patch_size": 16}
    model = build("smolvlm", vision, image_token_id=token("<image>"), scale_factor=4)
    images = transformers.SmolVLMImageProcessor(size={"longest_edge": 2048}, max_image_size={"longest_edge": 512})
    processor = transformers.Idefics3Processor(images, tokenizer(), image_seq_len=64)
    features = image_features(model, "pixel_values", "pixel_attention_mask")
    return Family("smolvlm", model, processor, ask(processor, "<image>"), features, 64, 3, blind=True)


def aya() -> Family:
    vision = SIGLIP_384 | {"image_size": 364}
    model = build(
        "aya_vision",
        vision,
        "cohere2",
        image_token_id=token("<|IMG_PATCH|>"),
        downsample_factor=2,
        alignment_intermediate_size=16,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    images = transformers.GotOcr2ImageProcessor(
        size={"height": 364, "width": 364}, crop_to_patches=True, min_patches=1, max_patches=12
    )
    processor = transformers.AyaVisionProcessor(images, tokenizer(), patch_size=28, img_size=364)
    features = image_features(model, "pixel_values")
    return Family("aya", model, processor, ask(processor, "<image>"), features, 28, 2, blind=True)


# One grid of any shape, its rows ended by break tokens of their own


def pixtral_family(kind: str, patch: int, merge: int, edge: int) -> Family:
    vision = {"model_type": "pixtral", "image_size": edge, "patch_size": patch, "head_dim": 8}
    extra: dict[str, Any] = (
        {"spatial_merge_size": merge} if kind == "mistral3" else {"vision_feature_select_strategy": "full"}
    )
    model = build(kind, vision, "mistral", image_token_id=token("[IMG]"), vision_feature_layer=-1, **extra)
    images = transformers.PixtralImageProcessor(
        size={"longest_edge": edge}, patch_size={"height": patch, "width": patch}
    )
    cell = patch * merge

    def rows(inputs: Inputs) -> list[str]:
        sizes = [(height // cell, width // cell) for height, width in inputs["image_sizes"].tolist()]
        return ["[IMG_BREAK]".join(["[IMG]" * width] * height) + "[IMG_END]" for height, width in sizes]

    process = expand(images, rows, patch_size={"height": cell, "width": cell})
    processor = SimpleNamespace(image_processor=images)
    return Family(kind, model, processor, process, image_features(model, "pixel_values", "image_sizes"), cell)


def mistral3() -> Family:
    return pixtral_family("mistral3", 14, 2, 1540)


def pixtral() -> Family:
    """mistral-community/pixtral-12b: a `llava` config with Pixtral's tower."""
    return replace(pixtral_family("llava", 16, 1, 1024), name="pixtral")


IMAGES: dict[str, Callable[[], Family]] = {
    builder.__name__: builder
    for builder in (
        llava,
        bakllava,
        vipllava,
        llava_siglip,
        paligemma,
        gemma3,
        gemma3_crops,
        llava_next,
        onevision,
        qwen2_vl,
        qwen2_5_vl,
        qwen3_vl,
        internvl,
        idefics3,
        smolvlm,
        aya,
        mistral3,
        pixtral,
    )
}
VIDEOS: dict[str, Callable[[], Family]] = {
    builder.__name__: builder for builder in (onevision_video, qwen2_vl_video, qwen2_5_vl_video, qwen3_vl_video)
}


# The combined processors that need torchvision, to hold the prompts written out above against


def real(kind: str, images: Any, video: str | None = None, **settings: Any) -> Any:
    """A combined processor of transformers, by name."""
    processors = [getattr(transformers, video)()] if video else []
    return getattr(transformers, kind)(images, tokenizer(), *processors, **settings)


def real_onevision(images: Any) -> Any:
    return real(
        "LlavaOnevisionProcessor",
        images,
        "LlavaOnevisionVideoProcessor",
        num_image_tokens=729,
        vision_feature_select_strategy="full",
    )


COMBINED: dict[str, Callable[[Any], Process]] = {
    "onevision": lambda images: ask(real_onevision(images), "<image>"),
    "qwen2_vl": lambda images: ask(real("Qwen2VLProcessor", images, "Qwen2VLVideoProcessor"), around("<image>")),
    "qwen2_5_vl": lambda images: ask(real("Qwen2_5_VLProcessor", images, "Qwen2VLVideoProcessor"), around("<image>")),
    "qwen3_vl": lambda images: ask(real("Qwen3VLProcessor", images, "Qwen3VLVideoProcessor"), around("<image>")),
    "internvl": lambda images: ask(real("InternVLProcessor", images, "InternVLVideoProcessor"), "<IMG_CONTEXT>"),
    "smolvlm": lambda images: ask(
        real("SmolVLMProcessor", images, "SmolVLMVideoProcessor", image_seq_len=64), "<image>"
    ),
    "mistral3": lambda images: ask(real("PixtralProcessor", images, patch_size=14, spatial_merge_size=2), "[IMG]"),
    "pixtral": lambda images: ask(real("PixtralProcessor", images, patch_size=16), "[IMG]"),
}


def watch(processor: Any, placeholder: str) -> Process:
    """The real processor on the frames of one video, in front of the question."""

    def process(frames: Images) -> Inputs:
        video = torch.stack([torch.tensor(np.asarray(frame)).permute(2, 0, 1) for frame in frames])
        text = f"{placeholder} What is it?"
        return processor(videos=[video], text=text, return_tensors="pt", do_sample_frames=False)

    return process


COMBINED_VIDEO: dict[str, Callable[[Any], Process]] = {
    "onevision_video": lambda images: watch(real_onevision(images), "<video>"),
    "qwen2_vl_video": lambda images: watch(
        real("Qwen2VLProcessor", images, "Qwen2VLVideoProcessor"), around("<video>")
    ),
    "qwen2_5_vl_video": lambda images: watch(
        real("Qwen2_5_VLProcessor", images, "Qwen2VLVideoProcessor"), around("<video>")
    ),
    "qwen3_vl_video": lambda images: watch(
        real("Qwen3VLProcessor", images, "Qwen3VLVideoProcessor"), around("<video>")
    ),
}

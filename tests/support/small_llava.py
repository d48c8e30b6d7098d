"""A LLaVA small enough to build in a test, with a real tokenizer, processor and chat template."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

PIXELS, PATCH, SIDE = 16, 4, 4  # 4 x 4 visual tokens
BOS, EOS, PAD, IMAGE = "<s>", "</s>", "<pad>", "<image>"
SPECIAL = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
WORDS = ["the", "a", "cat", "dog", "red", "image", "USER", "ASSISTANT", "Describe", "user", "it", "is", "on", "mat"]
TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
TEMPLATE_WITH_BOS = "<s>" + TEMPLATE.replace("part['text'] + ' '", "part['text'] | trim + '\n'")


def noise(side: int = 64) -> Image.Image:
    """A picture, the same one each time."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))


def byte_level() -> PreTrainedTokenizerFast:
    """Bytes, merged into a few words with and without the space before them; all else is single bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([BOS, EOS, PAD, IMAGE, *alphabet])}
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        for left, right in [*_prefixes(word), ("Ġ", word)]:
            if left + right not in vocabulary:
                vocabulary[left + right] = len(vocabulary)
                merges.append((left, right))
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return _finished(core)


def metaspace() -> PreTrainedTokenizerFast:
    """Llama's kind: a space becomes the first character of a word, unknown characters fall back to bytes."""
    letters = [chr(i) for i in range(33, 127)]
    words = {*WORDS, *(f"▁{word}" for word in WORDS)}
    others = [BOS, EOS, PAD, IMAGE, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *letters]
    tokens = [*others, *sorted(words.difference(others))]
    vocabulary = [(token, -1.0 if token in words else -9.0) for token in tokens]
    core = Tokenizer(models.Unigram(vocabulary, unk_id=2, byte_fallback=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _finished(core)


def _prefixes(word: str) -> Iterator[tuple[str, str]]:
    return ((word[:n], word[n]) for n in range(1, len(word)))


def _finished(core: Tokenizer) -> PreTrainedTokenizerFast:
    core.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, core.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, **SPECIAL, extra_special_tokens={"image_token": IMAGE}, model_max_length=256
    )


def processor(tokenizer: PreTrainedTokenizerFast | None = None, template: str | None = TEMPLATE) -> LlavaProcessor:
    images = CLIPImageProcessorPil(size={"shortest_edge": PIXELS}, crop_size={"height": PIXELS, "width": PIXELS})
    return LlavaProcessor(
        images,
        tokenizer or byte_level(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )


def model(tokenizer: Any, context: int = 256, **of_text: Any) -> LlavaForConditionalGeneration:
    """Random weights, large enough that some heads look at the image; it never ends an answer by itself.

    Args:
        of_text: of its decoder's config, instead of Llama's.
    """
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = AutoConfig.for_model(
        "llava",
        vision_config=vision | {"model_type": "clip_vision_model", "image_size": PIXELS, "patch_size": PATCH},
        text_config=text
        | {
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "num_key_value_heads": 2,
            "max_position_embeddings": context,
        }
        | of_text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
    )
    torch.manual_seed(0)
    built = LlavaForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in built.model.language_model.layers.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.3)
    built.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(EOS)
    built.generation_config.pad_token_id = tokenizer.convert_tokens_to_ids(PAD)
    return built

"""The untrained Shapes LLaVA: tokenizer, processor and a randomly initialised model of about 1.5 M
parameters."""

from __future__ import annotations

import numpy as np
import torch
from shapes_pool import PATCHES, PIXELS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from dexar_fast.data.shapes import layout, sample_questions

PAD, BOS, EOS, IMAGE = "<pad>", "<s>", "</s>", "<image>"
WIDTH = 128
DESCRIBE_PROMPTS = (
    "Describe the image.",
    "Describe this image.",
    "What is in the image?",
    "What do you see?",
)
# The wording of LLaVA-1.5: USER: <image>\n... ASSISTANT:
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% if message['content'] is string %}{{ message['content'] + ' ' }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE: each word of the corpus is one token, and any other text falls back to bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        special_tokens=[PAD, BOS, EOS, IMAGE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    bos = tokenizer.token_to_id(BOS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, bos)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
        model_max_length=1024,
    )


def _corpus() -> list[str]:
    """Chats over 500 layouts, each answer with and without the space that the chat puts before it."""
    rng = np.random.default_rng(0)
    questions = [question for seed in range(500) for question in sample_questions(layout(seed), rng)]
    chats = [f"USER: \n{question.text} ASSISTANT: {question.answer}" for question in questions]
    return chats + [question.answer for question in questions] + [f"\n{text}" for text in DESCRIBE_PROMPTS] * 100


def build_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    image_processor = CLIPImageProcessorPil(
        size={"height": PIXELS, "width": PIXELS},
        do_center_crop=False,
        crop_size={"height": PIXELS, "width": PIXELS},
    )
    return LlavaProcessor(
        image_processor,
        tokenizer,
        patch_size=PIXELS // PATCHES,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlavaForConditionalGeneration:
    """Float32, initialised from torch's global generator. One image is 144 tokens (CLIP without its class
    token)."""
    vision = CLIPVisionConfig(
        image_size=PIXELS,
        patch_size=PIXELS // PATCHES,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        projection_dim=WIDTH,
    )
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        **special,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=PATCHES**2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    model = LlavaForConditionalGeneration(config)
    start_local(model.model.vision_tower)
    for name, value in special.items():
        setattr(model.generation_config, name, value)
    model.generation_config.max_new_tokens = 48
    return model


def start_local(tower: CLIPVisionModel) -> None:
    """Let every patch begin by attending to its neighbours, after the mimetic initialisation of Trockman &
    Kolter (arXiv 2305.09828): sinusoidal position codes, and queries and keys that read them. From CLIP's own
    initialisation a tower this small spends most of its training on finding out what is next to what."""
    width = tower.config.hidden_size
    frequencies = torch.logspace(0, -1, width // 4) * torch.pi / 2
    angles = torch.arange(PATCHES)[:, None] * frequencies
    code = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows, columns = code[:, None].expand(-1, PATCHES, -1), code[None].expand(PATCHES, -1, -1)
    tower.embeddings.position_embedding.weight.data[1:] = 0.3 * torch.cat([rows, columns], -1).flatten(0, 1)
    # A head of 32 reads every fourth frequency, its sine and cosine of row and column.
    heads = tower.config.num_attention_heads
    reads = 1.5 * torch.eye(width).reshape(-1, heads, width).transpose(0, 1).reshape(width, width)
    for layer in tower.encoder.layers:
        layer.self_attn.q_proj.weight.data += reads
        layer.self_attn.k_proj.weight.data += reads

"""Tiny random models of types that read their image beyond the prompt's ids: by cross-attention, an encoder, a mask.

Each with the inputs of one prompt, how an answer is appended to them, and which keys of a call come from the image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import zoo
from torch import Tensor
from transformers import PreTrainedModel
from zoo import BOS, END, EOS, IMAGE, PAD, START, Draw, Inputs

F64 = torch.float64


@dataclass(frozen=True)
class Beyond:
    """A model, its inputs, and what its calls read. Each is float64 but for what the classes make float32 themselves.

    layers: the decoder's lists of layers by name; what the last of the first one's gives goes to the head.
    prompt: the ids [1, D] that stand before the answer in the decoder, as generate() has them.
    among_encoder, among_decoder: which of the encoder's keys [E], and of the decoder's [ahead + D], are the image's.
    ahead: positions that the decoder holds before its ids.
    """

    model: PreTrainedModel
    inputs: Inputs
    layers: tuple[str, ...]
    prompt: Tensor
    answered: Callable[[Tensor], Inputs]  # the inputs of one forward over prompt and answer [T]
    among_encoder: Tensor | None = None
    among_decoder: Tensor | None = None
    ahead: int = 0

    @property
    def first(self) -> int:
        """The position that predicts the answer's first token."""
        return self.ahead + self.prompt.shape[1] - 1

    def visual(self, keys: int, answer: int) -> Tensor:
        """[keys]: which of a call's keys are the image's. A merged call has the decoder's keys, then the encoder's."""
        decoder = torch.zeros(self.first + 1 + answer, dtype=torch.bool)
        if self.among_decoder is not None:
            decoder[: len(self.among_decoder)] = self.among_decoder
        encoder = decoder[:0] if self.among_encoder is None else self.among_encoder
        sides = [decoder, encoder, torch.cat([decoder, encoder])]
        (found,) = {len(side): side for side in sides if len(side) == keys}.values()
        return found


VISION = {**zoo.VISION}
IDS = {"vocab_size": zoo.VOCABULARY, "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}
BERT_SIZES = {
    **IDS,
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
BART_SIZES = {
    **IDS,
    "d_model": 64,
    "encoder_layers": 3,  # fewer than the decoder's, and generate() makes a cache that is too short
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 80,
    "decoder_ffn_dim": 80,
    "max_position_embeddings": 128,
    "decoder_start_token_id": EOS,
    "forced_eos_token_id": None,
}
T5_SIZES = {
    "vocab_size": zoo.VOCABULARY,
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 80,
    "num_layers": 3,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
    "decoder_start_token_id": PAD,
}
KOSMOS_SIZES = {
    **IDS,
    "embed_dim": 64,
    "layers": 3,
    "ffn_dim": 80,
    "attention_heads": 4,
    "max_position_embeddings": 128,
}
PIX2STRUCT_SIZES = {
    "vocab_size": zoo.VOCABULARY,
    "hidden_size": 64,
    "d_kv": 16,
    "d_ff": 80,
    "num_layers": 3,
    "num_heads": 4,
    "use_cache": True,
}
OPT = {**BERT_SIZES, "model_type": "opt", "ffn_dim": 80, "word_embed_proj_dim": 48}
LLAMA = {**zoo.TEXT, "model_type": "llama"}
T5 = {**T5_SIZES, "model_type": "t5"}
QFORMER = {**BERT_SIZES, "hidden_size": 32, "num_attention_heads": 2, "encoder_hidden_size": 32}
QUERIES = 5


def pixels(draw: Draw, *shape: int) -> Inputs:
    return {"pixel_values": draw.normal(*(shape or (1, 3, 16, 16))).to(F64)}


def causal(inputs: Inputs, **appended: int | None) -> Callable[[Tensor], Inputs]:
    """The answer behind the ids. `appended`: what the inputs of these names go on with, None for their last row."""

    def answered(answer: Tensor) -> Inputs:
        full = {**inputs, "input_ids": torch.cat([inputs["input_ids"], answer[None]], 1)}
        for name, value in {"attention_mask": 1, **appended}.items():
            last = inputs[name][:, -1:].expand(-1, len(answer), *inputs[name].shape[2:])
            full[name] = torch.cat([inputs[name], last if value is None else torch.full_like(last, value)], 1)
        return full

    return answered


def decoded(inputs: Inputs, prompt: Tensor) -> Callable[[Tensor], Inputs]:
    """The answer behind the decoder's prompt."""
    return lambda answer: {**inputs, "decoder_input_ids": torch.cat([prompt, answer[None]], 1)}


def inner_decoder(model: PreTrainedModel, inputs: Inputs, layers: str) -> Beyond:
    """An inner language model reads the image's features in the place of ids."""
    ids = inputs["input_ids"]
    return Beyond(model, inputs, (layers,), ids, causal(inputs), among_decoder=ids[0] == IMAGE)


def encoder_decoder(model: PreTrainedModel, inputs: Inputs, layers: str, among_encoder: Tensor, *prompt: int) -> Beyond:
    ids = torch.tensor([prompt])
    return Beyond(model, inputs, (layers,), ids, decoded(inputs, ids), among_encoder=among_encoder)


INNER_LAYERS = {"opt": "language_model.model.decoder.layers", "llama": "language_model.model.layers"}


def blip_family(model_type: str, text: dict[str, Any], frames: int = 1, **more: Any) -> Beyond:
    """Queries of a Q-Former, in front of the prompt: of a decoder, or of T5's encoder."""
    draw = Draw(0)
    sizes = {"vision_config": VISION, "qformer_config": QFORMER, "num_query_tokens": QUERIES}
    model = zoo._model(model_type, F64, draw, text_config=dict(text), **sizes, **(more or {"image_token_index": IMAGE}))
    inputs = zoo._text_inputs([*[IMAGE] * QUERIES * frames, BOS, *draw.words(6)])
    inputs |= pixels(draw, 1, 3, 16, 16) if frames == 1 else pixels(draw, 1, frames, 3, 16, 16)
    if model_type != "blip-2":
        question = torch.tensor([draw.words(4)])
        inputs |= {"qformer_input_ids": question, "qformer_attention_mask": torch.ones_like(question)}
    if text is T5:
        visual = inputs["input_ids"][0] == IMAGE
        return encoder_decoder(model, inputs, "language_model.decoder.block", visual, PAD)
    return inner_decoder(model, inputs, INNER_LAYERS[text["model_type"]])


def mllama() -> Beyond:
    """Two of four tiles; the words before the image see none of them."""
    draw = Draw(0)
    text = {**zoo.TEXT, "num_hidden_layers": 4, "cross_attention_layers": [1, 3], "model_type": "mllama_text_model"}
    vision = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_global_layers": 1,
        "attention_heads": 2,
        "intermediate_size": 48,
        "vision_output_dim": 64,
        "image_size": 16,
        "patch_size": 4,
        "intermediate_layers_indices": [0],
    }
    model = zoo._model("mllama", F64, draw, text_config=text, vision_config=vision, image_token_index=IMAGE)
    inputs = zoo._text_inputs([BOS, *draw.words(2), IMAGE, *draw.words(6)])
    tiles = torch.zeros(1, 10, 1, 4, dtype=torch.long)
    tiles[:, 3:, :, :2] = 1
    inputs |= pixels(draw, 1, 1, 4, 3, 16, 16) | {
        "aspect_ratio_ids": torch.tensor([[2]]),
        "aspect_ratio_mask": torch.tensor([[[1, 1, 0, 0]]]),
        "cross_attention_mask": tiles,
    }
    appended = causal(inputs, cross_attention_mask=None)
    keys = torch.ones(4 * 17, dtype=torch.bool)
    return Beyond(model, inputs, ("model.language_model.layers",), inputs["input_ids"], appended, among_encoder=keys)


def idefics(**more: Any) -> Beyond:
    """Two images; a word sees the last one before it."""
    draw = Draw(0)
    vision = {**VISION, "embed_dim": 32}
    sizes = {
        **BERT_SIZES,
        "vocab_size": 190,
        "additional_vocab_size": 10,
        "num_hidden_layers": 4,
        "vision_config": vision,
    }
    model = zoo._model("idefics", F64, draw, cross_layer_interval=2, qk_layer_norms=True, **sizes, **more)
    inputs = zoo._text_inputs([BOS, *draw.words(2), IMAGE, *draw.words(3), IMAGE, *draw.words(4)])
    images = torch.zeros(1, 12, 2, dtype=torch.long)
    images[:, 3:7, 0] = images[:, 7:, 1] = 1
    inputs |= pixels(draw, 1, 2, 3, 16, 16) | {"image_attention_mask": images}
    keys = torch.ones(2 * (4 if more else 17), dtype=torch.bool)
    layers = ("model.layers", "model.gated_cross_attn_layers")
    appended = causal(inputs, image_attention_mask=None)
    return Beyond(model, inputs, layers, inputs["input_ids"], appended, among_encoder=keys)


RESAMPLER = {
    "use_resampler": True,
    "resampler_n_latents": 4,
    "resampler_depth": 1,
    "resampler_n_heads": 2,
    "resampler_head_dim": 16,
}


def blip() -> Beyond:
    """Its generate() puts BOS for the prompt's first id, and leaves the last one out."""
    draw = Draw(0)
    text = {**BERT_SIZES, "sep_token_id": EOS}
    model = zoo._model("blip", F64, draw, text_config=text, vision_config=VISION)
    inputs = zoo._text_inputs([5, *draw.words(4), EOS]) | pixels(draw)
    prompt = inputs["input_ids"][:, :-1].clone()
    prompt[:, 0] = BOS
    read = {**inputs, "input_ids": prompt, "attention_mask": torch.ones_like(prompt)}
    keys = torch.ones(17, dtype=torch.bool)
    return Beyond(model, inputs, ("text_decoder.bert.encoder.layer",), prompt, causal(read), among_encoder=keys)


def florence2() -> Beyond:
    draw = Draw(0)
    vision = {
        "depths": [1],
        "patch_size": [4],
        "patch_stride": [4],
        "patch_padding": [0],
        "patch_prenorm": [False],
        "embed_dim": [32],
        "num_heads": [2],
        "num_groups": [2],
        "window_size": 4,
        "projection_dim": BART_SIZES["d_model"],
    }
    text = {**BART_SIZES, "model_type": "bart"}
    model = zoo._model("florence2", F64, draw, text_config=text, vision_config=vision, image_token_id=IMAGE)
    inputs = zoo._text_inputs([*[IMAGE] * 17, BOS, *draw.words(5), EOS]) | pixels(draw)
    visual = inputs["input_ids"][0] == IMAGE
    return encoder_decoder(model, inputs, "model.language_model.decoder.layers", visual, EOS)


def t5gemma2() -> Beyond:
    draw = Draw(0)
    kinds = (["sliding_attention", "full_attention"] * 2)[: zoo.TEXT["num_hidden_layers"]]
    text = {**zoo.TEXT, "layer_types": kinds, "sliding_window": 4, "query_pre_attn_scalar": 16}
    encoder = {
        "text_config": text,
        "vision_config": zoo.SIGLIP,
        "mm_tokens_per_image": 4,
        "image_token_index": IMAGE,
    }
    more = {"image_token_index": IMAGE, "eoi_token_index": END}
    model = zoo._model("t5gemma2", F64, draw, encoder=encoder, decoder=text, **more)
    inputs = zoo._text_inputs([BOS, *draw.words(2), START, *[IMAGE] * 4, END, *draw.words(5)]) | pixels(draw)
    visual = inputs["input_ids"][0] == IMAGE
    return encoder_decoder(model, inputs, "model.decoder.layers", visual, BOS)


DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("decoder.bert.encoder.layer", BERT_SIZES),
    "gpt2": ("decoder.transformer.h", {**IDS, "n_embd": 64, "n_inner": 80, "n_layer": 3, "n_head": 4}),
    "mbart": ("decoder.model.decoder.layers", {**BART_SIZES, "is_encoder_decoder": False, "scale_embedding": True}),
    "trocr": ("decoder.model.decoder.layers", {**BART_SIZES, "cross_attention_hidden_size": 32}),
}


def vision_encoder_decoder(decoder: str, side: int = 16) -> Beyond:
    """The decoder has a prompt of its own, such as Donut's names of tasks. The image has `side` pixels a side."""
    draw = Draw(0)
    layers, sizes = DECODERS[decoder]
    both = {
        "encoder": {"model_type": "vit", **VISION, "image_size": side},
        "decoder": {**sizes, "model_type": decoder, "is_decoder": True, "add_cross_attention": True},
    }
    model = zoo._model("vision-encoder-decoder", F64, draw, **both, decoder_start_token_id=BOS, pad_token_id=PAD)
    inputs = pixels(draw, 1, 3, side, side) | {"decoder_input_ids": torch.tensor([[BOS, *draw.words(2)]])}
    prompt = inputs["decoder_input_ids"][0].tolist()
    keys = torch.ones((side // VISION["patch_size"]) ** 2 + 1, dtype=torch.bool)
    return encoder_decoder(model, inputs, layers, keys, *prompt)


def flattened(draw: Draw, rows: int, columns: int, padding: int = 0) -> Tensor:
    """[1, n, 2 + 48]: row and column from 1, and 4 x 4 pixels; 0 for padding."""
    patches = draw.normal(1, rows * columns + padding, 50).to(F64)
    patches[0, : rows * columns, :2] = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).to(F64) + 1
    patches[0, rows * columns :] = 0
    return patches


def pix2struct(rows: int = 2, columns: int = 3, padding: int = 2) -> Beyond:
    """So many patches, and some of padding behind them."""
    draw = Draw(0)
    width = PIX2STRUCT_SIZES["hidden_size"]
    vision = {"hidden_size": width, "patch_embed_hidden_size": 48, "d_ff": 48, "d_kv": 16, "seq_len": 32}
    vision |= {"num_hidden_layers": 2, "num_attention_heads": 4}
    model = zoo._model("pix2struct", F64, draw, text_config=dict(PIX2STRUCT_SIZES), vision_config=vision)
    patches = flattened(draw, rows, columns, padding)
    seen = patches[..., 0] > 0
    inputs = {"flattened_patches": patches, "attention_mask": seen.to(F64)}
    return encoder_decoder(model, inputs, "decoder.layer", seen[0], PAD)


def pp_formulanet(side: int = 48) -> Beyond:
    """48 pixels a side are 12 x 12 patches, and 3 x 3 keys behind two convolutions of stride 2."""
    draw = Draw(0)
    vision = {
        "hidden_size": 32,
        "output_channels": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": side,
        "patch_size": 4,
        "window_size": 2,
        "global_attn_indexes": [1],
        "mlp_dim": 48,
        "post_conv_in_channels": 16,
        "post_conv_mid_channels": 24,
        "post_conv_out_channels": 32,
        "decoder_hidden_size": BART_SIZES["d_model"],
    }
    text = {name: size for name, size in BART_SIZES.items() if name != "encoder_ffn_dim"}
    model = zoo._model("pp_formulanet", F64, draw, text_config=text, vision_config=vision)
    inputs = pixels(draw, 1, 3, side, side)
    keys = torch.ones((side // 16) ** 2, dtype=torch.bool)
    return encoder_decoder(model, inputs, "model.decoder.layers", keys, EOS)


def udop() -> Beyond:
    """Words on three of the 4 x 4 patches. Those and the corners, where its boxes of 0 and 1 point, leave the keys."""
    draw = Draw(0)
    sizes = {**T5_SIZES, "max_2d_position_embeddings": 32, "image_size": 16, "patch_size": 4}
    model = zoo._model("udop", F64, draw, **sizes)
    boxes = torch.zeros(1, 8, 4, dtype=F64)
    boxes[0, 3:7] = torch.tensor(
        [[0.3, 0.1, 0.45, 0.2], [0.1, 0.3, 0.2, 0.45], [0.6, 0.6, 0.7, 0.7], [0.62, 0.6, 0.7, 0.7]]
    )
    boxes[0, 7] = 1
    inputs = zoo._text_inputs([*draw.words(7), EOS]) | {"bbox": boxes} | pixels(draw)
    visual = torch.zeros(8 + 16, dtype=torch.bool)
    visual[8 : 8 + 16 - 5] = True  # and 5 of padding
    return encoder_decoder(model, inputs, "decoder.block", visual, PAD)


def git(frames: int = 1) -> Beyond:
    """The image's 17 positions stand before the ids, and have none."""
    draw = Draw(0)
    more = {"num_image_with_embedding": frames} if frames > 1 else {}
    model = zoo._model("git", F64, draw, **BERT_SIZES, vision_config=VISION, **more)
    inputs = zoo._text_inputs([BOS, *draw.words(5)])
    inputs |= pixels(draw) if frames == 1 else pixels(draw, 1, frames, 3, 16, 16)
    ahead = 17 * frames
    visual = torch.ones(ahead, dtype=torch.bool)
    ids = inputs["input_ids"]
    return Beyond(model, inputs, ("git.encoder.layer",), ids, causal(inputs), among_decoder=visual, ahead=ahead)


def kosmos(
    model_type: str, image: Callable[[Draw], Inputs], vision: dict[str, Any], ids: list[int], mark: int
) -> Beyond:
    """A mask says where the latents stand."""
    draw = Draw(0)
    sizes = {"text_config": KOSMOS_SIZES, "vision_config": vision, "latent_query_num": QUERIES}
    model = zoo._model(model_type, F64, draw, **sizes)
    inputs = zoo._text_inputs([BOS, START, *ids, END, *draw.words(5)]) | image(draw)
    places = torch.zeros_like(inputs["input_ids"])
    places[:, [1, 2 + QUERIES]] = mark
    places[:, 2 : 2 + QUERIES] = 1
    inputs["image_embeds_position_mask"] = places
    appended = causal(inputs, image_embeds_position_mask=0)
    return Beyond(
        model, inputs, ("text_model.model.layers",), inputs["input_ids"], appended, among_decoder=places[0] == 1
    )


def kosmos2() -> Beyond:
    """It makes its mask in torch's default dtype, and finfo(float64).min is none of float32's numbers."""
    made = kosmos("kosmos-2", pixels, VISION, list(range(100, 100 + QUERIES)), 0)
    makes_mask = made.model.text_model.model
    makes_mask.register_forward_pre_hook(lambda *_: torch.set_default_dtype(F64))
    makes_mask.register_forward_hook(lambda *_: torch.set_default_dtype(torch.float32), always_call=True)
    return made


def kosmos2_5() -> Beyond:
    vision = {
        "hidden_size": 32,
        "patch_embed_hidden_size": 48,
        "intermediate_size": 48,
        "head_dim": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_num_patches": 32,
    }
    return kosmos("kosmos-2.5", lambda draw: {"flattened_patches": flattened(draw, 2, 4)}, vision, [BOS] * QUERIES, -1)


BEYOND: dict[str, Callable[[], Beyond]] = {
    "blip": blip,
    "blip-2": lambda: blip_family("blip-2", OPT),
    "blip-2/t5": lambda: blip_family("blip-2", T5),
    "florence2": florence2,
    "git": git,
    "git/video": lambda: git(frames=2),
    "idefics": idefics,
    "idefics/resampler": lambda: idefics(use_resampler=True, perceiver_config=RESAMPLER),
    "instructblip": lambda: blip_family("instructblip", OPT),
    "instructblip/llama": lambda: blip_family("instructblip", LLAMA),
    "instructblip/t5": lambda: blip_family("instructblip", T5),
    "instructblipvideo": lambda: blip_family("instructblipvideo", LLAMA, frames=4, video_token_index=IMAGE),
    "instructblipvideo/t5": lambda: blip_family("instructblipvideo", T5, frames=4, video_token_index=IMAGE),
    "kosmos-2": kosmos2,
    "kosmos-2.5": kosmos2_5,
    "mllama": mllama,
    "pix2struct": pix2struct,
    "pp_formulanet": pp_formulanet,
    "t5gemma2": t5gemma2,
    "udop": udop,
    "vision-encoder-decoder/bert": lambda: vision_encoder_decoder("bert"),
    "vision-encoder-decoder/gpt2": lambda: vision_encoder_decoder("gpt2"),
    "vision-encoder-decoder/mbart": lambda: vision_encoder_decoder("mbart"),
    "vision-encoder-decoder/trocr": lambda: vision_encoder_decoder("trocr"),
}

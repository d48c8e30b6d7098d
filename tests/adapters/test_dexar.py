"""Official mode and the drop-in for the authors' package, against tests/support/official.py."""

import dataclasses
import inspect
import math
from pathlib import Path

import matplotlib
import numpy as np
import official
import pytest
import torch
import zoo
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from dexar_fast import Explainer
from dexar_fast.adapters.dexar import DexarResult, DexarWrapper, visualize, visualize_multi
from dexar_fast.errors import FileError, InputError

matplotlib.use("Agg")

SIDE, PATCH, DEPTH = 4, 14, 12
PROMPT = "USER: <image>\nDescribe the image. ASSISTANT:"
ANSWER = "A dog!"
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
TARGETS = torch.tensor([11, 57, 23, 140, 11, 88, 9])
TENSORS = (
    "per_token_heatmaps",
    "per_token_heatmaps_unfiltered",
    "token_weights",
    "sentence_heatmap",
    "sentence_heatmap_unfiltered",
)


def assert_close(actual: torch.Tensor, expected: torch.Tensor, name: str = "") -> None:
    """Within the tolerance of the dtype, relative to the largest value."""
    assert actual.shape == expected.shape, name
    assert actual.dtype == expected.dtype, name
    error = (actual - expected).abs().max() / expected.abs().max()
    assert error <= TOLERANCE[expected.dtype], f"{name}: relative error {error:.1e}"


# Official mode


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("layer_index", [0, 1, -1, -2, -10])
def test_official_mode_is_the_authors_loop(dtype: torch.dtype, layer_index: int) -> None:
    model, inputs = zoo.build("llava", dtype)
    compare(model, inputs, layer_index)


@pytest.mark.parametrize("chunk_size", [1, 3, len(TARGETS)])
def test_chunks_share_one_scale(chunk_size: int) -> None:
    model, inputs = zoo.build("llava", torch.float64)
    compare(model, inputs, 0, chunk_size=chunk_size)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_prompts_that_end_near_the_image(after: int) -> None:
    model, inputs = zoo.build("llava", torch.float64)
    length = image_positions(model, inputs).stop + after
    for name in ("input_ids", "attention_mask"):
        inputs[name] = inputs[name][:, :length]
    compare(model, inputs, 0)


def test_the_scale_starts_at_the_smallest_gradient() -> None:
    """One layer, visual tokens nearly alike, and an answer to which every head has positive gradients only."""
    model, inputs = zoo.build("llava", torch.float64)
    with torch.no_grad():
        model.model.multi_modal_projector.linear_2.weight.mul_(0.01)
    model.model.language_model.layers = model.model.language_model.layers[:1]
    model.config.text_config.num_hidden_layers = 1
    target, image = torch.tensor([72]), image_positions(model, inputs)
    eager, pixels = official.eager_copy(model), inputs["pixel_values"].double()
    gradients = official.attention_gradients(eager, inputs["input_ids"], pixels, target, 0)
    assert gradients[..., image.start : image.stop].min() > 0
    compare(model, inputs, 0, target)


def compare(model, inputs: dict, layer_index: int, targets: torch.Tensor = TARGETS, **knobs) -> None:
    image = image_positions(model, inputs)
    pixels = {"pixel_values": inputs["pixel_values"].to(model.dtype)}
    expected = official.official(model, inputs | pixels, targets, image, layer_index)
    explainer = Explainer(model, mode="official", layer_index=layer_index, **knobs)
    actual = explainer.explain_inputs(inputs, target_ids=targets)
    assert (expected.head_weights > 0).any() and (expected.token_weights > 0).any()
    for name, value in vars(expected).items():
        assert_close(getattr(actual, name), value, name)


def image_positions(model, inputs: dict) -> range:
    positions = (inputs["input_ids"][0] == model.config.image_token_id).nonzero()[:, 0].tolist()
    return range(positions[0], positions[-1] + 1)


# The wrapper


@pytest.fixture(scope="module")
def processor() -> LlavaProcessor:
    """The image processor of LLaVA at 56 pixels, and a byte-level tokenizer without merges.

    Like LLaVA's it puts a space before a text, so an answer has other tokens on its own than in its place.
    """
    special = ["<s>", "</s>", "<pad>", "<image>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*special, *alphabet])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    names = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "extra_special_tokens": ["<image>"],
    }
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **names)
    pixels = SIDE * PATCH
    images = CLIPImageProcessor(size={"shortest_edge": pixels}, crop_size={"height": pixels, "width": pixels})
    return LlavaProcessor(
        images,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def tiny_llava(dtype: torch.dtype) -> LlavaForConditionalGeneration:
    """12 layers, so that the default layer_index of -10 leaves some out."""
    text = LlamaConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=DEPTH,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE * PATCH,
        patch_size=PATCH,
        initializer_range=0.3,
    )
    torch.manual_seed(3)  # some token weights are positive, with the default layers and with all
    config = LlavaConfig(text_config=text, vision_config=vision, image_token_index=3)
    return LlavaForConditionalGeneration(config).eval().to(dtype)


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((90, 70))


def authors_result(model, processor, image: Image.Image, layer_index: int) -> DexarResult:
    tokenizer = processor.tokenizer
    inputs = processor(text=PROMPT, images=image, return_tensors="pt")
    inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    targets = tokenizer.encode(ANSWER, add_special_tokens=False)
    positions = official.image_by_retokenising(tokenizer, PROMPT, SIDE**2)
    raw = official.official(model, inputs, torch.tensor(targets), positions, layer_index)

    def shown(maps: torch.Tensor) -> torch.Tensor:
        return torch.stack([official.displayed(m) for m in maps.reshape(-1, SIDE, SIDE)])

    return DexarResult(
        shown(raw.token_maps),
        shown(raw.unfiltered_token_maps),
        raw.token_weights,
        shown(raw.sequence_map)[0],
        shown(raw.unfiltered_sequence_map)[0],
        [tokenizer.decode([target]) for target in targets],
    )


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("layer_index", [None, 0])
def test_wrapper_returns_what_the_authors_return(processor, picture, dtype, layer_index) -> None:
    model = tiny_llava(dtype)
    wrapper = DexarWrapper(model, processor, *([] if layer_index is None else [layer_index]))
    actual = wrapper.compute_dexar(picture, ANSWER, PROMPT)
    expected = authors_result(model, processor, picture, -10 if layer_index is None else layer_index)
    assert actual.tokens == expected.tokens == list(f" {ANSWER}")
    for name in TENSORS:
        assert_close(getattr(actual, name), getattr(expected, name), name)
    assert (actual.token_weights > 0).any()
    assert actual.per_token_heatmaps.shape == (1 + len(ANSWER), SIDE, SIDE)
    assert actual.sentence_heatmap.shape == (SIDE, SIDE)


def test_names_and_defaults_are_the_authors() -> None:
    assert [field.name for field in dataclasses.fields(DexarResult)] == [*TENSORS, "tokens"]
    assert defaults(DexarWrapper) == {"model": ..., "processor": ..., "layer_index": -10}
    assert defaults(DexarWrapper.from_pretrained) == {"model_name": ..., "device": "cuda", "layer_index": -10}
    compute = {"self": ..., "image": ..., "target_sentence": ..., "prompt": PROMPT}
    assert defaults(DexarWrapper.compute_dexar) == compute
    drawing = {"alpha": 0.6, "title": None, "save_path": None}
    assert defaults(visualize) == {"image": ..., "heatmap": ..., **drawing}
    drawing = {"tokens": None, "alpha": 0.6, "save_path": None}
    assert defaults(visualize_multi) == {"image": ..., "heatmaps": ..., **drawing}


def defaults(function) -> dict:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: ... if p.default is p.empty else p.default for p in parameters}


def test_layer_index_can_be_changed_later(processor, picture) -> None:
    model = tiny_llava(torch.float32)
    wrapper = DexarWrapper(model, processor)
    wrapper.layer_index = -1
    expected = DexarWrapper(model, processor, -1).compute_dexar(picture, ANSWER)
    torch.testing.assert_close(wrapper.compute_dexar(picture, ANSWER).token_weights, expected.token_weights)


def test_without_a_gradient_the_maps_are_zero(processor, picture) -> None:
    model = tiny_llava(torch.float32)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    result = DexarWrapper(model, processor).compute_dexar(picture, ANSWER)
    for name in TENSORS:
        assert (getattr(result, name) == 0).all(), name


@pytest.mark.parametrize("prompt", ["Describe the image. ASSISTANT:", "<image><image>\nCompare. ASSISTANT:"])
def test_prompts_need_one_image_token(processor, picture, prompt) -> None:
    wrapper = DexarWrapper(tiny_llava(torch.float32), processor)
    with pytest.raises(InputError, match="image token"):
        wrapper.compute_dexar(picture, ANSWER, prompt)


def test_empty_answers_are_refused(processor, picture) -> None:
    with pytest.raises(InputError):
        DexarWrapper(tiny_llava(torch.float32), processor).compute_dexar(picture, "", PROMPT)


def test_an_image_that_is_not_one_grid_is_refused(processor, picture) -> None:
    """16 patches and the class token: 17 visual tokens."""
    images, tokenizer = processor.image_processor, processor.tokenizer
    with_class_token = LlavaProcessor(images, tokenizer, PATCH, "full", num_additional_image_tokens=1)
    model = tiny_llava(torch.float32)
    model.config.vision_feature_select_strategy = "full"
    with pytest.raises(InputError, match="one grid"):
        DexarWrapper(model, with_class_token).compute_dexar(picture, ANSWER, PROMPT)


# Pictures

MAPS = torch.linspace(0, 1, 2 * 20 * 30).reshape(2, 20, 30)


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def colours(path: Path) -> set[tuple[int, ...]]:
    return set(map(tuple, read(path).reshape(-1, 3).tolist()))


def test_alpha_goes_from_the_image_to_the_map(tmp_path: Path) -> None:
    green = Image.new("RGB", (30, 20), (10, 200, 30))
    for alpha in (0, 0.5, 1):
        visualize(green, torch.zeros(20, 30), alpha=alpha, save_path=tmp_path / f"{alpha}.png")
    assert (10, 200, 30) in colours(tmp_path / "0.png")
    assert (0, 0, 4) in colours(tmp_path / "1.png")  # the coldest colour of inferno
    assert (5, 100, 17) in colours(tmp_path / "0.5.png")


def test_a_title_is_drawn(tmp_path: Path) -> None:
    image = Image.new("RGB", (30, 20))
    visualize(image, MAPS[0], save_path=tmp_path / "plain.png")
    visualize(image, MAPS[0], title="two $ and $ signs", save_path=tmp_path / "titled.png")
    assert read(tmp_path / "titled.png").shape[0] > read(tmp_path / "plain.png").shape[0]


def test_multi_saves_the_page_and_a_picture_per_token(tmp_path: Path) -> None:
    image = Image.new("RGB", (60, 40))
    visualize_multi(image, MAPS, tokens=[" a b", "../\x00c\\d"], save_path=str(tmp_path / "maps.png"))
    assert {path.name for path in tmp_path.iterdir()} == {"maps.png", "maps_a_b.png", "maps_..__c_d.png"}
    assert read(tmp_path / "maps.png").shape[1] > 2 * read(tmp_path / "maps_a_b.png").shape[1]


def test_tokens_default_to_numbers_and_the_extension_to_png(tmp_path: Path) -> None:
    visualize_multi(Image.new("L", (60, 40)), MAPS.half(), save_path=str(tmp_path / "maps"))
    assert {path.name for path in tmp_path.iterdir()} == {"maps.png", "maps_0.png", "maps_1.png"}


def test_of_tokens_that_read_alike_the_last_picture_stays(tmp_path: Path) -> None:
    image = Image.new("RGB", (30, 20))
    both = torch.stack([torch.zeros(20, 30), torch.ones(20, 30)])
    visualize_multi(image, both, tokens=["a", "a"], alpha=1, save_path=tmp_path / "maps.png")
    assert (0, 0, 4) not in colours(tmp_path / "maps_a.png")  # the coldest colour of inferno
    assert (252, 255, 164) in colours(tmp_path / "maps_a.png")  # the hottest


def test_long_answers_wrap(tmp_path: Path) -> None:
    visualize_multi(Image.new("RGB", (6, 4)), torch.zeros(10, 4, 6), save_path=tmp_path / "maps.png")
    height, width = read(tmp_path / "maps.png").shape[:2]
    assert 0.15 < height / width < 0.5  # 11 panels: two rows, of eight at most


def test_bad_drawing_input_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    image = Image.new("RGB", (30, 20))
    with pytest.raises(InputError, match="axes"):
        visualize(image, MAPS, save_path=tmp_path / "maps.png")
    with pytest.raises(InputError, match="axes"):
        visualize_multi(image, MAPS[0], save_path=tmp_path / "maps.png")
    with pytest.raises(InputError, match="1 tokens for 2 maps"):
        visualize_multi(image, MAPS, tokens=["a"], save_path=tmp_path / "maps.png")
    with pytest.raises(FileError, match="create it"):
        visualize(image, MAPS[0], save_path=tmp_path / "missing" / "map.png")
    assert list(tmp_path.iterdir()) == []
    assert matplotlib.pyplot.get_fignums() == []


# A script written for the authors' package

SCRIPT = """
import torch.nn.functional as F
from PIL import Image
from dexar import DexarWrapper, visualize, visualize_multi

wrapper = DexarWrapper.from_pretrained("tiny-llava", device="cpu", layer_index=0)
image = Image.open("picture.png").convert("RGB").resize((56, 56))
prompt = "USER: <image>\\nWhat? ASSISTANT:"
result = wrapper.compute_dexar(image=image, target_sentence="A dog!", prompt=prompt)
for name in ("sentence_heatmap", "sentence_heatmap_unfiltered"):
    heat = F.interpolate(getattr(result, name)[None, None], scale_factor=14, mode="bilinear")[0, 0]
    visualize(image=image, heatmap=heat, title=name, save_path=name + ".png")
for name in ("per_token_heatmaps", "per_token_heatmaps_unfiltered"):
    heat = F.interpolate(getattr(result, name)[None], scale_factor=14, mode="bilinear")[0]
    visualize_multi(image=image, heatmaps=heat, tokens=result.tokens, save_path=name + ".png")
"""


def test_their_script_runs_with_one_import_changed(processor, picture, tmp_path, monkeypatch) -> None:
    tiny_llava(torch.float32).save_pretrained(tmp_path / "tiny-llava")
    processor.save_pretrained(tmp_path / "tiny-llava")
    picture.save(tmp_path / "picture.png")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(SCRIPT.replace("from dexar import", "from dexar_fast.adapters.dexar import"), names)
    result = names["result"]
    assert result.tokens == list(" A dog!")
    assert all(math.isfinite(weight) for weight in result.token_weights.tolist())
    assert (result.per_token_heatmaps_unfiltered.amax((1, 2)) == 1).all()
    expected = {f"sentence_heatmap{kind}.png" for kind in ("", "_unfiltered")}
    for kind in ("", "_unfiltered"):
        expected |= {f"per_token_heatmaps{kind}{token}.png" for token in ("", "_A", "_", "_d", "_o", "_g", "_!")}
    assert {path.name for path in tmp_path.glob("*.png")} == expected | {"picture.png"}

"""What goes wrong for users: a specific exception from Python, one line and exit code 2 from the program."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small_llava
import torch
import transformers
import zoo
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration
from typer.testing import CliRunner, Result

from dexar_fast import BackendError, Explainer, ImageError, InputError, ModelError, NumericalError
from dexar_fast.cli import app
from dexar_fast.errors import DexarError
from dexar_fast.generation.generate import EmptyAnswer

PROMPT, ANSWER = "Describe the image.", "the cat is red"
PICTURE = Image.new("RGB", (40, 30), "red")
CONTEXT = 64
TOKENIZER = small_llava.byte_level()
PROCESSOR = small_llava.processor(TOKENIZER)
MODEL = small_llava.model(TOKENIZER, CONTEXT)


def explainer(**knobs: Any) -> Explainer:
    return Explainer(MODEL, PROCESSOR, **knobs)


def inputs(prompt: str = f"USER: {small_llava.IMAGE}\n{PROMPT} ASSISTANT:", images: int = 1) -> dict[str, Any]:
    return dict(PROCESSOR(images=[PICTURE] * images, text=prompt, return_tensors="pt"))


def refused(error: type[DexarError], *words: str, call: Callable[[], Any]) -> None:
    """The call raises exactly this error, and its message holds these words."""
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.fixture(autouse=True)
def model_is_left_as_it_was() -> Any:
    before = MODEL.config.text_config._attn_implementation
    yield
    assert MODEL.config.text_config._attn_implementation == before
    assert not any(layer._forward_hooks for layer in MODEL.model.language_model.layers)


# Images, prompts and answers


def test_it_works_without_an_error() -> None:
    """What every test below takes away from."""
    explanation = explainer().explain(PICTURE, PROMPT, ANSWER)
    assert "".join(explanation.tokens) == f" {ANSWER}"
    assert explanation.token_maps.shape == (4, small_llava.SIDE**2)


def test_images(tmp_path: Path) -> None:
    (tmp_path / "note.png").write_text("no image")
    ask = explainer().explain
    refused(ImageError, "none.png does not exist", call=lambda: ask(tmp_path / "none.png", PROMPT))
    refused(ImageError, "note.png is not an image", call=lambda: ask(str(tmp_path / "note.png"), PROMPT))
    refused(ImageError, "no image: pass", call=lambda: ask([], PROMPT))
    refused(ImageError, "no image: pass a path", call=lambda: ask(None, PROMPT))


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (3, 200), (500, 2)])
def test_an_image_of_any_shape_is_explained(size: tuple[int, int]) -> None:
    found = explainer().explain(Image.new("RGB", size, "red"), PROMPT, ANSWER)
    assert found.token_maps.isfinite().all()
    assert found.images[0].size == size


def test_empty_prompts_and_answers() -> None:
    ask = explainer().explain
    for empty in ("", "  \n"):
        refused(InputError, "prompt is empty: ask", call=lambda text=empty: ask(PICTURE, text))
        refused(InputError, "answer is empty: give response=", call=lambda text=empty: ask(PICTURE, PROMPT, text))


@pytest.mark.parametrize(("tokens", "images"), [(2, 1), (1, 2), (3, 2)])
def test_image_tokens_that_do_not_match_the_images(tokens: int, images: int) -> None:
    prompt = PROMPT + small_llava.IMAGE * tokens
    message = f"{tokens} image tokens '<image>' for {images} image(s): write one for each"
    refused(InputError, message, call=lambda: explainer().explain([PICTURE] * images, prompt, ANSWER))


def test_explain_needs_a_processor() -> None:
    refused(InputError, "needs a processor", "explain_inputs()", call=lambda: Explainer(MODEL).explain(PICTURE, PROMPT))


def test_content_needs_the_prompts_text() -> None:
    call = lambda: explainer(text_set="content").explain_inputs(inputs(), target_ids=[7])  # noqa: E731
    refused(InputError, "text_set='content'", "use explain() with a processor", call=call)


def test_an_empty_answer_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    first = explainer().explain(PICTURE, PROMPT, max_new_tokens=1).token_ids
    monkeypatch.setattr(MODEL.generation_config, "eos_token_id", int(first[0]))
    refused(EmptyAnswer, "answer is empty", "give response=", call=lambda: explainer().explain(PICTURE, PROMPT))


# Length


def test_an_answer_beyond_the_context() -> None:
    ask, words = explainer().explain, ("context of 64", "shorten")
    refused(InputError, *words, call=lambda: ask(PICTURE, PROMPT, "the cat " * 30))
    refused(InputError, *words, call=lambda: ask(PICTURE, PROMPT, max_new_tokens=CONTEXT))
    refused(InputError, *words, call=lambda: ask(PICTURE, "the cat " * 40))


def test_an_answer_up_to_the_context_is_explained() -> None:
    room = CONTEXT - inputs()["input_ids"].shape[1]
    assert len(explainer().explain_inputs(inputs(), target_ids=[7] * room)) == room
    with pytest.raises(InputError):
        explainer().explain_inputs(inputs(), target_ids=[7] * (room + 1))


def test_a_generated_answer_stays_within_the_context() -> None:
    """The 128 tokens of the default would not fit."""
    room = CONTEXT - inputs()["input_ids"].shape[1]
    assert 1 < len(explainer().explain(PICTURE, PROMPT)) <= room < 128


def test_a_prompt_that_fills_the_context() -> None:
    full = inputs(small_llava.IMAGE + " cat" * (CONTEXT - 1 - small_llava.SIDE**2))
    assert full["input_ids"].shape[1] == CONTEXT
    refused(InputError, "context of 64", call=lambda: explainer().explain_inputs(full))


# Inputs


def test_inputs_without_an_image_token() -> None:
    text_only = inputs() | {"input_ids": torch.full((1, 9), 7), "attention_mask": torch.ones(1, 9)}
    for made in (text_only, {k: v for k, v in text_only.items() if k != "pixel_values"}):
        for target_ids in ([7], None):
            call = lambda made=made, ids=target_ids: explainer().explain_inputs(made, target_ids=ids)  # noqa: E731
            refused(InputError, "holds no image token: pass an image", call=call)


def test_image_tokens_without_an_image() -> None:
    made = {k: v for k, v in inputs().items() if k != "pixel_values"}
    refused(InputError, "image tokens and no image", "pixel_values", call=lambda: explainer().explain_inputs(made, [7]))


@pytest.mark.parametrize("change", [1, -1])
@pytest.mark.parametrize("target_ids", [[7], None])
def test_too_many_or_too_few_image_tokens(change: int, target_ids: Any) -> None:
    made = inputs()
    position = int((made["input_ids"][0] == PROCESSOR.image_token_id).nonzero()[0])
    ids = made["input_ids"].clone()
    ids[0, position - 1 if change > 0 else position] = PROCESSOR.image_token_id if change > 0 else 7
    made |= {"input_ids": ids}
    words = ("model refuses its inputs", "pass what its processor returns", "do not match")
    refused(InputError, *words, call=lambda: explainer().explain_inputs(made, target_ids=target_ids))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_inputs(side: str) -> None:
    made, pad = inputs(), (3, 0) if side == "left" else (0, 3)
    made["input_ids"] = torch.nn.functional.pad(made["input_ids"], pad, value=2)
    made["attention_mask"] = torch.nn.functional.pad(made["attention_mask"], pad)
    refused(InputError, "padded (3 positions", "without padding", call=lambda: explainer().explain_inputs(made, [7]))


def test_a_batch_of_two() -> None:
    made = dict(PROCESSOR(images=[[PICTURE]] * 2, text=[f"{small_llava.IMAGE} a"] * 2, return_tensors="pt"))
    refused(InputError, "input_ids [1, P]", "one prompt at a time", call=lambda: explainer().explain_inputs(made, [7]))


@pytest.mark.parametrize("ids", [None, torch.tensor([3, 4]), [[[3, 4]]], "3 4"])
def test_input_ids_of_another_shape(ids: Any) -> None:
    made = {k: v for k, v in (inputs() | {"input_ids": ids}).items() if v is not None}
    refused(InputError, "inputs must hold input_ids [1, P]", call=lambda: explainer().explain_inputs(made, [7]))


@pytest.mark.parametrize("made", [torch.ones(1, 5), "USER: <image>", None])
def test_inputs_that_are_none(made: Any) -> None:
    refused(InputError, "inputs must be what the processor returns", call=lambda: explainer().explain_inputs(made, [7]))


VOCABULARY = len(TOKENIZER)


@pytest.mark.parametrize(
    ("target_ids", "words"),
    [
        ([], "[T] integers with T >= 1"),
        (5, "[T] integers with T >= 1"),
        ([[5, 6]], "not torch.int64 [1, 2]"),
        ([5.0, 6.0], "not torch.float32 [2]"),
        ([True, False], "not torch.bool [2]"),
        ([5, VOCABULARY], f"in the vocabulary, 0 to {VOCABULARY - 1}"),
        ([5, -1], "in the vocabulary"),
        ([5, PROCESSOR.image_token_id], "hold the model's image token: an answer is text"),
        ("the cat", "target_ids must be [T] integers"),
        (["the", "cat"], "target_ids must be [T] integers"),
        ([[5, 6], [7]], "target_ids must be [T] integers"),
        ({"ids": 5}, "target_ids must be [T] integers"),
    ],
)
def test_target_ids(target_ids: Any, words: str) -> None:
    refused(InputError, words, call=lambda: explainer().explain_inputs(inputs(), target_ids=target_ids))


@pytest.mark.parametrize("kind", [list, tuple, torch.tensor, lambda ids: torch.tensor(ids, dtype=torch.int32).numpy()])
def test_target_ids_of_any_kind(kind: Callable[[list[int]], Any]) -> None:
    found = explainer().explain_inputs(inputs(), target_ids=kind([7, 9]))
    assert found.token_ids.tolist() == [7, 9]
    assert found.token_ids.dtype == torch.int64


# Knobs


@pytest.mark.parametrize("size", [0, -1, 2.5, "8"])
def test_chunk_size(size: Any) -> None:
    refused(InputError, f"chunk_size {size!r}", "positive number", call=lambda: explainer(chunk_size=size))


@pytest.mark.parametrize("count", [0, -3, 2.5, "8"])
def test_max_new_tokens(count: Any) -> None:
    words = f"max_new_tokens {count!r} is no positive number"
    refused(InputError, words, call=lambda: explainer().explain(PICTURE, PROMPT, max_new_tokens=count))


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"mode": "quick"}, "'paper', 'official'"),
        ({"text_set": "some"}, "'all', 'content', 'prompt', 'generated'"),
        ({"sequence_norm": "some"}, "'none', 'token'"),
        ({"head_score": "median"}, "'max', 'mean', ('topk', k)"),
        ({"map_filter": "median"}, "('rank', k)"),
        ({"layers": "all"}, "number the layers"),
        ({"layers": [0], "layer_index": 1}, "not both"),
        ({"backend": "fast"}, "choose auto, torch"),
    ],
)
def test_unknown_values(knobs: dict[str, Any], words: str) -> None:
    refused(InputError, words, call=lambda: explainer(**knobs))


@pytest.mark.parametrize("knobs", [{"backend": "triton"}, {"backend": "cpp", "head_score": "mean"}])
def test_a_backend_that_cannot_run(knobs: dict[str, Any]) -> None:
    refused(BackendError, knobs["backend"], "use backend='torch'", call=lambda: explainer(**knobs))


@pytest.mark.parametrize("knobs", [{"layers": [2]}, {"layers": [-3]}, {"layer_index": 2}])
def test_layers_the_model_does_not_have(knobs: dict[str, Any]) -> None:
    words = "out of range: the model has at most 2 layers"
    refused(InputError, words, call=lambda: explainer(**knobs).explain_inputs(inputs(), [7]))


def test_a_map_filter_without_geometry() -> None:
    model, made = zoo.build("idefics3", torch.float32)
    call = lambda: Explainer(model, map_filter=("rank", 5)).explain_inputs(made, [20])  # noqa: E731
    refused(InputError, "map_filter works on 2-D maps", call=call)


def test_an_argument_that_generate_does_not_know() -> None:
    refused(InputError, "sunlight", call=lambda: explainer().explain(PICTURE, PROMPT, sunlight=True))


@pytest.mark.parametrize("limits", [{"max_length": 30}, {"generation_config": GenerationConfig(max_new_tokens=3)}])
def test_arguments_of_generate_are_generates(limits: dict[str, Any]) -> None:
    found = explainer().explain_inputs(inputs(), do_sample=False, return_dict_in_generate=True, **limits)
    assert len(found) == 30 - inputs()["input_ids"].shape[1]
    assert len(found) == 3


def test_the_end_token_of_a_generation_config_ends_the_answer() -> None:
    ids = explainer().explain_inputs(inputs(), max_new_tokens=3).token_ids.tolist()
    assert ids[0] != ids[1]
    config = GenerationConfig(max_new_tokens=3, eos_token_id=ids[1])
    assert explainer().explain_inputs(inputs(), generation_config=config).token_ids.tolist() == ids[:1]


# One token


@pytest.mark.parametrize("knobs", [{}, {"chunk_size": 1}, {"text_set": "generated"}, {"mode": "official"}])
def test_an_answer_of_one_token_is_explained_like_the_first_of_many(knobs: dict[str, Any]) -> None:
    many = explainer(**knobs).explain_inputs(inputs(), [7, 9, 30])
    one = explainer(**knobs).explain_inputs(inputs(), [7])
    for name in ("visual_scores", "text_scores", "head_weights", "token_weights"):
        torch.testing.assert_close(getattr(one, name), getattr(many, name)[:1])
    if "mode" not in knobs:  # whose scale is that of the whole answer
        torch.testing.assert_close(one.token_maps, many.token_maps[:1])
    assert one.visual_scores.any() and one.sequence_map.shape == many.sequence_map.shape


def test_the_first_token_has_no_generated_text_to_depend_on() -> None:
    found = explainer(text_set="generated", chunk_size=1).explain_inputs(inputs(), [7, 9])
    assert not found.text_scores[0].any()
    assert found.text_scores[1].any()


# Models


def test_what_is_no_model() -> None:
    for thing in (None, "llava-hf/llava-1.5-7b-hf", torch.nn.Linear(2, 2)):
        refused(ModelError, "is no transformers model", call=lambda thing=thing: Explainer(thing))


def test_a_model_without_a_head() -> None:
    words = ("LlavaModel has no output head", "ForConditionalGeneration")
    refused(ModelError, *words, call=lambda: Explainer(MODEL.model))


def test_a_model_that_writes_no_text_is_not_told_to_be_of_another_class() -> None:
    name = "PI0ForConditionalGeneration"
    if not hasattr(transformers, name):
        pytest.skip(f"this transformers has no {name}")
    with torch.device("meta"):
        model = getattr(transformers, name)(transformers.AutoConfig.for_model("pi0"))
    refused(ModelError, name, "shows no output head of its own", call=lambda: Explainer(model, PROCESSOR))


def test_the_language_model_of_a_family_for_images() -> None:
    """Its class inherits what its family says that it takes."""
    config = transformers.Gemma3TextConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, head_dim=4)
    model = transformers.Gemma3ForCausalLM(config)
    refused(ModelError, "Gemma3ForCausalLM takes no images, only text", call=lambda: Explainer(model))


def test_a_model_of_parts_that_has_no_forward() -> None:
    with torch.device("meta"):
        model = transformers.Qwen2_5OmniForConditionalGeneration(transformers.Qwen2_5OmniConfig())
    words = ("has no forward of its own", "pass the Qwen2_5OmniThinkerForConditionalGeneration inside it (thinker)")
    refused(ModelError, *words, call=lambda: Explainer(model))


def test_an_encoder_decoder_of_text_alone() -> None:
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
    model = T5ForConditionalGeneration(T5Config(vocab_size=9, **sizes))
    refused(ModelError, "T5ForConditionalGeneration takes no images", call=lambda: Explainer(model))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small-llava"
    MODEL.save_pretrained(path)
    PROCESSOR.save_pretrained(path)
    return path


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A folder to damage."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def spoil(folder: Path, value: float, layer: int = 1) -> None:
    """Puts a value into the weights of a decoder layer."""
    tensors = load_file(folder / "model.safetensors")
    (name,) = [name for name in tensors if f"layers.{layer}.self_attn.v_proj" in name and "vision" not in name]
    tensors[name][0, 0] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_model_comes_from_its_folder(folder: Path) -> None:
    loaded = Explainer.from_pretrained(folder, device="cpu", dtype="float64", chunk_size=2)
    assert (loaded.model.dtype, loaded.chunk_size) == (torch.float64, 2)
    found = loaded.explain(PICTURE, PROMPT, ANSWER)
    wanted = explainer().explain(PICTURE, PROMPT, ANSWER)
    torch.testing.assert_close(found.token_maps.float(), wanted.token_maps, rtol=1e-3, atol=1e-5)


def loading_fails(name: Any, *words: str, **options: Any) -> None:
    refused(ModelError, *words, call=lambda: Explainer.from_pretrained(name, **options))


def test_unknown_models(tmp_path: Path) -> None:
    hint = "give a folder that holds one, or its name on the Hugging Face Hub"
    for name in (str(tmp_path / "none"), tmp_path, "no-such-owner/no-such-model", "a b/c", ""):
        loading_fails(name, f"cannot load {name!r}", hint)


def test_folders_that_hold_no_such_model(copy: Path) -> None:
    weights = copy / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    loading_fails(copy, "cannot load")
    weights.unlink()
    loading_fails(copy, "cannot load", "model.safetensors")
    (copy / "config.json").write_text("{")
    loading_fails(copy, "cannot load")


def test_a_text_model_is_no_model_for_images(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, **sizes)).save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    loading_fails(tmp_path, "cannot load", "for images and text")


def test_a_device_that_is_not_there(folder: Path) -> None:
    missing = "cuda:99" if torch.cuda.is_available() else "cuda"
    for device in (missing, "gpu"):
        loading_fails(folder, f"cannot put the model on device '{device}'", device=device)


@pytest.mark.parametrize("dtype", ["float99", "int8", torch.int64, 16])
def test_a_dtype_that_is_none(dtype: Any) -> None:
    """Known before anything is loaded."""
    words = (f"dtype {dtype!r} is none of", "bfloat16", "float32")
    refused(InputError, *words, call=lambda: Explainer.from_pretrained("anything", dtype=dtype))


# NaN and infinity


@pytest.fixture(params=[math.nan, math.inf])
def spoiled(copy: Path, request: pytest.FixtureRequest) -> Path:
    spoil(copy, request.param)
    return copy


@pytest.mark.parametrize("how", [{"response": ANSWER}, {"do_sample": False}, {"do_sample": True}], ids=str)
def test_bad_weights_are_named_with_their_layer(spoiled: Path, how: dict[str, Any]) -> None:
    bad = Explainer.from_pretrained(spoiled, device="cpu")
    words = ("NaN or infinity in decoder layer 1", "check the model's weights")
    refused(NumericalError, *words, call=lambda: bad.explain(PICTURE, PROMPT, **how))


# The program


@pytest.fixture
def picture(tmp_path: Path) -> str:
    PICTURE.save(tmp_path / "picture.png")
    return str(tmp_path / "picture.png")


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(app.app, ["explain", *map(str, arguments)], env={"COLUMNS": "200"})


def fails(*arguments: Any, out: Path, words: str) -> None:
    """One line on stderr with these words, exit code 2, nothing on stdout, no file."""
    result = run(*arguments, "--out", out)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert result.stderr.startswith("dexar-fast: ")
    assert result.stderr.endswith("\n") and result.stderr.count("\n") == 1
    assert words in result.stderr
    assert not out.is_dir() or os.listdir(out) == []


def test_the_program_works_without_an_error(folder: Path, picture: str, tmp_path: Path) -> None:
    result = run(picture, PROMPT, "--model", folder, "--response", ANSWER, "--out", tmp_path / "out")
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    assert sorted(os.listdir(tmp_path / "out")) == [
        "answer.png",
        "explanation.safetensors",
        "report.html",
        "tokens.png",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--response", ""], "answer is empty"),
        (["--response", "the cat " * 40], "context of 64"),
        (["--max-new-tokens", "64"], "context of 64"),
        (["--max-new-tokens", "0"], "max_new_tokens 0 is no positive number"),
        (["--chunk-size", "0"], "chunk_size 0"),
        (["--mode", "quick"], "mode 'quick' is none of 'paper', 'official'"),
        (["--text-set", "some"], "text_set 'some' is none of"),
        (["--backend", "fast"], "choose auto, torch"),
        (["--backend", "triton"], "use backend='torch'"),
        (["--dtype", "float99"], "dtype 'float99' is none of"),
        (["--device", "gpu"], "cannot put the model on device 'gpu'"),
    ],
    ids=str,
)
def test_an_option_the_program_refuses(
    folder: Path, picture: str, tmp_path: Path, arguments: list[str], words: str
) -> None:
    fails(picture, PROMPT, "--model", folder, *arguments, out=tmp_path / "out", words=words)


def test_prompts_the_program_refuses(folder: Path, picture: str, tmp_path: Path) -> None:
    for prompt, words in (("", "prompt is empty"), ("<image> <image>", "2 image tokens '<image>' for 1 image(s)")):
        fails(picture, prompt, "--model", folder, out=tmp_path / "out", words=words)


def test_images_the_program_refuses(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "note.png").write_text("no image")
    for name, words in (("none.png", "does not exist"), ("note.png", "is not an image"), ("", "is a folder")):
        fails(tmp_path / name, PROMPT, "--model", folder, out=tmp_path / "out", words=words)


def test_models_the_program_refuses(picture: str, tmp_path: Path) -> None:
    for name in (tmp_path / "none", "no-such-owner/no-such-model"):
        fails(picture, PROMPT, "--model", name, out=tmp_path / "out", words=f"cannot load '{name}'")


@pytest.mark.parametrize("out", ["picture.png", "picture.png/out"])
def test_a_folder_that_cannot_be_written(folder: Path, picture: str, tmp_path: Path, out: str) -> None:
    before = Path(picture).read_bytes()
    fails(picture, PROMPT, "--model", folder, out=tmp_path / out, words="choose another folder with --out")
    assert Path(picture).read_bytes() == before


def test_bad_weights_through_the_program(spoiled: Path, picture: str, tmp_path: Path) -> None:
    config = json.loads((spoiled / "generation_config.json").read_text())
    for sampled in (False, True):
        (spoiled / "generation_config.json").write_text(json.dumps(config | {"do_sample": sampled}))
        words = "NaN or infinity in decoder layer 1"
        fails(picture, PROMPT, "--model", spoiled, out=tmp_path / "out", words=words)


def test_a_failure_leaves_an_earlier_result_as_it_was(folder: Path, picture: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(picture, PROMPT, "--model", folder, "--response", ANSWER, "--out", out).exit_code == 0
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    assert run(picture, PROMPT, "--model", folder, "--response", "", "--out", out, "--force").exit_code == 2
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_the_line_is_all_that_reaches_the_terminal(copy: Path, picture: str, tmp_path: Path) -> None:
    """No log line, progress bar or warning of the libraries beside it."""
    spoil(copy, math.nan)
    command = [sys.executable, "-c", "from dexar_fast.cli.app import main; main()", "explain", picture, PROMPT]
    command += ["--model", str(copy), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("dexar-fast: NaN or infinity in decoder layer 1")
    assert done.stderr.count("\n") == 1

"""The table of bad input: models, processors, and numbers that are none."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import bad_input
import peft
import pytest
import small_llava
import torch
from bad_input import MODEL, PICTURE, PROCESSOR, PROMPT, TOKENIZER, Case, Row
from bad_models import explained, fresh, from_folder, in_memory
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from transformers import ByT5Tokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

from dexar_fast import Explainer, Explanation
from dexar_fast.errors import ModelError

LAYERS = "model.language_model.layers"


# Processors


def no_template(folder: Path) -> list[Case]:
    """The image, then the text."""
    processor = small_llava.processor(TOKENIZER, None)
    (case,) = from_folder(folder, processor=processor)
    return [Case(case.explain, partial(explained, MODEL, processor, small_llava.IMAGE + PROMPT), case.program)]


def slow_processor() -> Any:
    """With a tokenizer written in Python, which knows no offsets."""
    tokenizer = ByT5Tokenizer(extra_special_tokens={"image_token": small_llava.IMAGE})
    assert not tokenizer.is_fast
    return small_llava.processor(tokenizer)


def without_offsets(**knobs: Any) -> Callable[[Path], list[Case]]:
    processor = slow_processor()
    return lambda folder: [Case(lambda: explained(small_llava.model(processor.tokenizer), processor, **knobs))]


# Heads


def tied(model: Any) -> None:
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = True
    model.tie_weights()
    model.lm_head.weight = model.get_input_embeddings().weight


def same_head_untied(model: Any) -> None:
    model.lm_head.weight = nn.Parameter(model.get_input_embeddings().weight.detach().clone())


def tied_head(folder: Path) -> list[Case]:
    (case,) = from_folder(folder, fresh(tied))
    return [Case(case.explain, lambda: explained(fresh(same_head_untied)), case.program)]


# Quantised weights


class Int8(nn.Module):
    """A linear layer of 8-bit weights, with a scale for each row, that autograd can follow."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.scale = linear.weight.detach().abs().amax(1, keepdim=True) / 127
        self.whole = (linear.weight.detach() / self.scale).round().to(torch.int8)
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.whole.to(x.dtype) * self.scale, self.bias)


def quantised(model: Any) -> None:
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear:
            model.set_submodule(name, Int8(module))


def rounded(model: Any) -> None:
    """The same numbers as floats."""
    for module in model.modules():
        if type(module) is nn.Linear:
            small = Int8(module)
            module.weight = nn.Parameter(small.whole * small.scale)


def inference_only(*names: str) -> Callable[[], Any]:
    """Kernels without a backward, for these parts of the language model."""

    def change(model: Any) -> None:
        for name in names:
            for inner, module in list(model.get_submodule(name).named_modules()):
                if type(module) is nn.Linear:
                    quick = torch.ao.quantization.quantize_dynamic(nn.Sequential(module), {nn.Linear}, torch.qint8)[0]
                    model.set_submodule(".".join(filter(None, [name, inner])), quick)

    return lambda: fresh(change)


# Over several processes


def tensor_parallel() -> Any:
    """As transformers marks what it loaded by `tp_plan` in two processes."""
    model = fresh()
    model._tp_size = 2
    return model


def fully_sharded() -> Any:
    """A weight as FSDP and tensor parallelism keep it, by a group of this process alone."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        model, mesh = fresh(), init_device_mesh("cpu", (1,))
        model.lm_head.weight = nn.Parameter(distribute_tensor(model.lm_head.weight.detach(), mesh, [Shard(0)]))
        return model
    finally:
        distributed.destroy_process_group()


# torch.compile


def not_to_be_called(module: Any, inputs: Any) -> Any:
    raise AssertionError("compiled code was run")


def compiled_parts(*names: str) -> Callable[[], Any]:
    def change(model: Any) -> None:
        for name in names:
            model.set_submodule(name, torch.compile(model.get_submodule(name), backend=not_to_be_called))

    return lambda: fresh(change)


def compiled_in_place() -> Any:
    model = fresh()
    for module in (model, *model.get_submodule(LAYERS)):
        module.compile(backend=not_to_be_called)
    return model


def compiled(folder: Path) -> list[Case]:
    makes = [
        lambda: torch.compile(fresh(), backend=not_to_be_called),
        compiled_in_place,
        compiled_parts(f"{LAYERS}.0", f"{LAYERS}.1"),
        compiled_parts(f"{LAYERS}.0.self_attn", f"{LAYERS}.1.mlp", "lm_head", "model.language_model.norm"),
        compiled_parts("model.language_model", "model.vision_tower"),
    ]
    return [case for make in makes for case in in_memory(make, fresh)(folder)]


# Adapters


def adapted(*targets: str, **options: Any) -> Any:
    torch.manual_seed(0)
    config = peft.LoraConfig(r=2, lora_alpha=8, target_modules=list(targets), init_lora_weights=False, **options)
    return peft.get_peft_model(fresh(), config)


def adapters(folder: Path) -> list[Case]:
    kinds = [("q_proj", "v_proj"), ("o_proj", "down_proj"), ("lm_head", "embed_tokens")]
    makes = [partial(adapted, *targets) for targets in kinds] + [partial(adapted, "o_proj", lora_dropout=0.5)]
    return [case for make in makes for case in in_memory(make, lambda make=make: make().merge_and_unload())(folder)]


def learned_prompt() -> Any:
    return peft.get_peft_model(fresh(), peft.PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"))


# What is no vision-language model


def text_model() -> Any:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(TOKENIZER), **sizes))


def text_only_folder(folder: Path) -> list[Case]:
    text_model().save_pretrained(folder / "text")
    TOKENIZER.save_pretrained(folder / "text")
    return named(str(folder / "text"))(folder)


def named(name: str) -> Callable[[Path], list[Case]]:
    def cases(folder: Path) -> list[Case]:
        PICTURE.save(folder / "a.png")
        load = lambda: Explainer.from_pretrained(name)  # noqa: E731
        return [Case(load, None, [str(folder / "a.png"), PROMPT, "--model", name])]  # type: ignore[arg-type]

    return cases


# Numbers


def spoiled(value: float) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        with torch.no_grad():
            model.get_submodule(LAYERS)[1].self_attn.v_proj.weight[0, 0] = value

    return change


def bad_weights(folder: Path) -> list[Case]:
    cases = []
    for value in (math.nan, math.inf):
        (folder / str(value)).mkdir()
        cases += from_folder(folder / str(value), fresh(spoiled(value)))
    return cases


def blank_head(model: Any) -> None:
    with torch.no_grad():
        model.lm_head.weight.zero_()


def ids(*target_ids: int) -> Callable[[Path], list[Case]]:
    """An answer by its ids; the same tokens at the start of a longer one are explained alike."""

    def explain() -> Explanation:
        made = PROCESSOR(images=PICTURE, text=f"USER: {small_llava.IMAGE}\n{PROMPT} ASSISTANT:", return_tensors="pt")
        return Explainer(MODEL, PROCESSOR).explain_inputs(made, list(target_ids), images=PICTURE)

    def by_text() -> Explanation:
        return bad_input.explain(response=TOKENIZER.decode(list(target_ids)))

    return lambda folder: [Case(explain, by_text)]


def generating(*options: str, **arguments: Any) -> Callable[[Path], list[Case]]:
    def cases(folder: Path) -> list[Case]:
        PICTURE.save(folder / "a.png")
        program = [str(folder / "a.png"), PROMPT, *options] if options else None
        return [Case(partial(bad_input.explain, PICTURE, PROMPT, None, **arguments), None, program)]

    return cases


def too_long(folder: Path) -> list[Case]:
    ways = [generating("--max-new-tokens", "256", max_new_tokens=256), generating(max_length=257)]
    ways += [
        generating(generation_config=GenerationConfig(**limit))
        for limit in ({"max_length": 257}, {"max_new_tokens": 256})
    ]
    return [case for way in ways for case in way(folder)]


WORD = TOKENIZER.convert_tokens_to_ids("Ġcat")

ROWS = {
    "no chat template": Row("warned", ("LlavaProcessor has no chat template: the prompt goes",), no_template),
    "no processor": Row(
        "InputError",
        ("explain() needs a processor", "AutoProcessor.from_pretrained()", "explain_inputs()"),
        lambda f: [Case(partial(explained, MODEL, processor)) for processor in (None, TOKENIZER)],
    ),
    "tokenizer without offsets": Row("explained", ("like any other, with text_set='all'",), without_offsets()),
    "tokenizer without offsets, text_set='content'": Row(
        "InputError",
        ("needs a fast tokenizer with character offsets; use text_set='all'",),
        without_offsets(text_set="content"),
    ),
    "tied head": Row("explained", ("like the same weights untied",), tied_head),
    "untied head": Row("explained", ("as it is",), from_folder),
    "text-only model": Row("ModelError", ("takes no images", "pass a model for images"), in_memory(text_model)),
    "folder or name of a text-only model": Row(
        "ModelError", ("as a model for images and text", "give a folder that holds one"), text_only_folder
    ),
    "unknown folder or name": Row(
        "ModelError",
        ("cannot load", "give a folder that holds one, or its name on the Hugging Face Hub"),
        lambda f: [case for name in (str(f / "none"), "no-such-owner/no-such-model") for case in named(name)(f)],
    ),
    "model on the meta device": Row(
        "ModelError",
        ("is on the meta device, without weights: load it by from_pretrained()",),
        in_memory(lambda: fresh().to("meta")),
    ),
    "model split over processes (tp_plan, FSDP)": Row(
        "ModelError",
        ("is split over processes", "load it whole, or by device_map='auto' over the devices of one process"),
        lambda f: [case for split in (tensor_parallel, fully_sharded) for case in in_memory(split)(f)],
    ),
    "quantised weights with a backward": Row(
        "explained", ("like the rounded weights",), in_memory(lambda: fresh(quantised), lambda: fresh(rounded))
    ),
    "quantised weights for inference only": Row(
        "ModelError",
        ("has no gradient", "load the model unquantised, or quantised by a library that can train adapters"),
        lambda f: [
            case
            for names in ([LAYERS], [f"{LAYERS}.1.mlp"], [f"{LAYERS}.0.self_attn.o_proj"], ["lm_head"])
            for case in in_memory(inference_only(*names))(f)
        ],
    ),
    "torch.compile of the model or its modules": Row("explained", ("by their own code, not the compiled",), compiled),
    "PEFT adapter of weights": Row("explained", ("like the merged weights",), adapters),
    "PEFT adapter of learned prompt tokens": Row(
        "ModelError", ("puts learned tokens before the prompt", "LoRA"), in_memory(learned_prompt)
    ),
    "NaN or infinity in the weights": Row(
        "NumericalError", ("NaN or infinity in decoder layer 1", "check the model's weights"), bad_weights
    ),
    "all logits equal": Row(
        "explained",
        ("all maps blank",),
        lambda f: [Case(lambda: blank(f), program=from_folder(f, fresh(blank_head))[0].program)],
    ),
    "answer of no tokens (T = 0)": Row(
        "InputError", ("target_ids must be [T] integers with T >= 1",), lambda f: [Case(ids()(f)[0].explain)]
    ),
    "answer of one token (T = 1)": Row("explained", ("like any other",), ids(WORD)),
    "max_new_tokens or max_length beyond the context": Row(
        "InputError", ("more than the model's context of 256: shorten the answer",), too_long
    ),
    "argument that generate() does not know": Row(
        "InputError",
        ("generate() refuses its arguments (sunlight)", "not used by the model"),
        generating(sunlight=True),
    ),
}


def blank(folder: Path) -> Explanation:
    found = explained(fresh(blank_head))
    for name in ("token_maps", "unfiltered_token_maps", "token_weights", "sequence_map"):
        assert not getattr(found, name).any()
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # torch.ao's, about itself
@pytest.mark.parametrize("row", ROWS)
def test_model(row: str, tmp_path: Path, model_folder: Path) -> None:
    bad_input.check(ROWS[row], tmp_path, model_folder)


def test_compiled_modules_are_compiled_again_afterwards() -> None:
    model = compiled_parts(f"{LAYERS}.0.mlp", "lm_head")()
    model.get_submodule(LAYERS)[1].compile(backend=not_to_be_called)
    explained(model)
    hidden = torch.zeros(1, 1, 32)
    for module in (model.get_submodule(f"{LAYERS}.0.mlp"), model.lm_head):
        with pytest.raises(Exception, match="compiled code was run"):
            module(hidden)
    assert model.get_submodule(LAYERS)[1]._compiled_call_impl is not None


def test_modules_that_read_no_gradient_may_be_quantised_for_inference() -> None:
    """None goes through queries, keys and values."""
    model = inference_only(f"{LAYERS}.0.self_attn.q_proj", f"{LAYERS}.1.self_attn.v_proj")()
    torch.testing.assert_close(explained(model).token_maps, explained(MODEL).token_maps, rtol=0.5, atol=0.02)


def test_an_adapter_in_training_mode_stays_in_it() -> None:
    model = adapted("o_proj", lora_dropout=0.5).train()
    explained(model)
    assert all(module.training for module in model.modules())


class DeafHub:
    """Takes connections and never answers."""

    def __enter__(self) -> str:
        self.socket = socket.create_server(("127.0.0.1", 0))
        return f"http://127.0.0.1:{self.socket.getsockname()[1]}"

    def __exit__(self, *exception: object) -> None:
        self.socket.close()


@pytest.mark.parametrize("deaf", [True, False])
def test_a_hub_that_cannot_be_reached_is_given_up_within_seconds(deaf: bool, tmp_path: Path) -> None:
    """transformers alone repeats a dozen requests five times each, for minutes."""
    with DeafHub() as address:
        environment = os.environ | {"HF_HUB_OFFLINE": "0", "HF_HUB_ETAG_TIMEOUT": "1", "HF_HOME": str(tmp_path)}
        environment["HF_ENDPOINT"] = address if deaf else "http://127.0.0.1:9"
        code = "import time, transformers; from dexar_fast import Explainer\nstart = time.monotonic()\n"
        code += "try: Explainer.from_pretrained('no-such-owner/no-such-model')\n"
        code += "except Exception as error: print(time.monotonic() - start, type(error).__name__, error)"
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    seconds, kind, message = done.stdout.split(maxsplit=2)
    assert kind == ModelError.__name__ and "couldn't connect" in message
    assert float(seconds) < 20

"""A pool outlives the weights that filled it: what another state of the model has made is never found again."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import pytest
import small_llava
import torch
import zoo
from PIL import Image
from torch import nn

from dexar_fast import Explainer
from dexar_fast.errors import CacheError
from dexar_fast.kvcache import weights
from dexar_fast.kvcache.pool import KVPool

peft = pytest.importorskip("peft")

TARGETS = [20, 30, 40]
ARRAYS = ("visual_scores", "text_scores", "token_maps", "unfiltered_token_maps")
SETTINGS = {"target_modules": ["q_proj", "v_proj"], "init_lora_weights": False}


def attention(model: Any) -> Any:
    return model.model.language_model.layers[0].self_attn


def gives_the_same(pooled: Explainer, inputs: Any) -> bool:
    """Whether an explanation over the pool is one from scratch."""
    alone = Explainer(pooled.model, chunk_size=pooled.chunk_size)
    found, wanted = (each.explain_inputs(inputs, target_ids=TARGETS) for each in (pooled, alone))
    largest = {name: getattr(wanted, name).abs().max() for name in ARRAYS}
    return all((getattr(found, x) - getattr(wanted, x)).abs().max() <= 1e-4 * largest[x] for x in ARRAYS)


@pytest.fixture
def model() -> Any:
    return zoo.build("llava", torch.float32)[0]


@pytest.fixture
def inputs() -> Any:
    return zoo.build("llava", torch.float32)[1]


def a_training_step(model: Any) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    sum(p.square().sum() for p in model.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()


def other_weights_loaded(model: Any) -> None:
    model.load_state_dict({name: x.flip(0) for name, x in model.state_dict().items()})


def other_weights_assigned(model: Any) -> None:
    model.load_state_dict({name: x.flip(0) for name, x in model.state_dict().items()}, assign=True)


def an_edit_of_data(model: Any) -> None:
    before = attention(model).k_proj.weight._version
    attention(model).k_proj.weight.data += 1
    assert attention(model).k_proj.weight._version == before


def a_head_ablated(model: Any) -> None:
    """Of whose columns a sample at the beginning of a row sees nothing."""
    attention(model).o_proj.weight.data[:, zoo.HEAD_DIM : 2 * zoo.HEAD_DIM] = 0


def the_values_of_a_head_ablated(model: Any) -> None:
    attention(model).v_proj.weight.data[zoo.HEAD_DIM :] = 0


def an_input_of_a_layer_switched_off(model: Any) -> None:
    model.model.language_model.layers[0].input_layernorm.weight.data[7] = 0


def other_data(model: Any) -> None:
    attention(model).v_proj.weight.data = attention(model).v_proj.weight.data.flip(0)


def an_edit_of_the_vision_tower(model: Any) -> None:
    for weight in model.model.vision_tower.parameters():
        weight.data *= 0.5


def an_edit_of_the_projector(model: Any) -> None:
    model.model.multi_modal_projector.linear_1.weight.data.mul_(-1)


def an_edit_of_embeddings(model: Any) -> None:
    with torch.no_grad():
        model.get_input_embeddings().weight[zoo.BOS] += 1


def another_module(model: Any) -> None:
    attention(model).v_proj = nn.Linear(zoo.HIDDEN, 2 * zoo.HEAD_DIM, bias=False)


def another_buffer(model: Any) -> None:
    model.model.language_model.rotary_emb.inv_freq.data *= 0.5


def a_number_of_a_module(model: Any) -> None:
    model.model.language_model.layers[0].input_layernorm.variance_epsilon = 50.0


def a_number_of_a_config(model: Any) -> None:
    model.config.vision_feature_layer = -1


def a_forward_of_the_users(model: Any) -> None:
    forward = attention(model).v_proj.forward
    attention(model).v_proj.forward = lambda x: 2 * forward(x)


def a_hook(model: Any) -> None:
    attention(model).v_proj.register_forward_hook(lambda module, args, output: 2 * output)


def a_hook_before(model: Any) -> None:
    attention(model).v_proj.register_forward_pre_hook(lambda module, args: (2 * args[0],))


CHANGES: list[Callable[[Any], None]] = [
    a_training_step, other_weights_loaded, other_weights_assigned, an_edit_of_data, other_data,
    a_head_ablated, the_values_of_a_head_ablated, an_input_of_a_layer_switched_off,
    an_edit_of_the_vision_tower, an_edit_of_the_projector, an_edit_of_embeddings, another_module, another_buffer,
    a_number_of_a_module, a_number_of_a_config, a_forward_of_the_users, a_hook, a_hook_before,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_has_changed_is_computed_anew(change: Callable[[Any], None], model: Any, inputs: Any) -> None:
    pooled = Explainer(model, pool=KVPool(256, 4))
    before = pooled.explain_inputs(inputs, target_ids=TARGETS)
    change(model)
    assert gives_the_same(pooled, inputs)
    after = pooled.explain_inputs(inputs, target_ids=TARGETS)
    assert (after.token_maps - before.token_maps).abs().max() > 1e-3 * before.token_maps.abs().max()


@pytest.mark.parametrize("shape", [(64, 80), (512, 512), (11008, 512), (128, 896), (4096, 128), (96, 3, 14, 14)])
@pytest.mark.parametrize("is_transposed", [False, True])
def test_every_row_and_column_of_some_width_meets_a_sample(shape: tuple[int, ...], is_transposed: bool) -> None:
    width, height = shape[-1], math.prod(shape[:-1])
    column, row = (torch.arange(n, dtype=torch.float32) for n in (width, height))
    for along, size in ((column.expand(height, width), width), (row[:, None].expand(height, width), height)):
        x = along.reshape(shape).contiguous()
        x = x.mT.contiguous().mT if is_transposed and x.ndim == 2 else x
        met = weights._some(x, x.numel()).unique()
        gaps = torch.diff(torch.cat([torch.tensor([-1.0]), met, torch.tensor([float(size)])]))
        assert float(gaps.max()) <= max(1, size / 32)


def test_weights_without_addresses_are_never_the_same_twice(model: Any, inputs: Any) -> None:
    mlp = model.model.language_model.layers[0].mlp
    mlp.down_proj.weight = nn.Parameter(mlp.down_proj.weight.detach().to_sparse())
    pooled = Explainer(model, pool=KVPool(256, 4))
    assert gives_the_same(pooled, inputs) and gives_the_same(pooled, inputs)
    assert weights.state(model) != weights.state(model)


def test_weights_made_in_inference_mode_have_no_versions(model: Any) -> None:
    with torch.inference_mode():
        for module in model.modules():
            for name, weight in list(module._parameters.items()):
                if weight is not None:
                    module._parameters[name] = nn.Parameter(weight.clone(), requires_grad=False)
    assert weights.state(model) == weights.state(model)
    before = weights.state(model)
    with torch.inference_mode():
        attention(model).k_proj.weight += 1
    assert weights.state(model) != before


@contextmanager
def doubled(model: Any) -> Iterator[None]:
    original = type(attention(model)).forward
    type(attention(model)).forward = lambda self, *args, **kwargs: tuple(2 * x for x in original(self, *args, **kwargs))
    yield
    type(attention(model)).forward = original


def test_a_class_whose_forward_is_replaced_makes_other_keys(model: Any) -> None:
    before = weights.state(model)
    with doubled(model):
        assert weights.state(model) != weights.state(model)
    assert weights.state(model) == before


def test_code_with_a_state_is_never_the_same_twice(model: Any, inputs: Any) -> None:
    """Its closure may have changed, which nothing shows."""
    factor = {"a": 1.0}
    forward = attention(model).v_proj.forward
    attention(model).v_proj.forward = lambda x: forward(x) * factor["a"]
    pooled = Explainer(model, pool=KVPool(256, 4))
    for factor["a"] in (1.0, 0.5, 0.0):
        assert gives_the_same(pooled, inputs)


def test_a_mode_around_the_call_is_seen(model: Any) -> None:
    class Halving(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return func(*args, **(kwargs or {}))

    before = weights.state(model)
    with Halving():
        assert weights.state(model) != before
    assert weights.state(model) == before


def test_a_function_of_torch_that_is_replaced_is_seen(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = weights.state(model)
    monkeypatch.setattr(nn.functional, "silu", lambda x, inplace=False: x)
    assert weights.state(model) != before


ADAPTERS: dict[str, Callable[[Any], Any]] = {
    "disabled": lambda model: model.base_model.disable_adapter_layers(),
    "another": lambda model: model.set_adapter("other"),
    "merged": lambda model: model.merge_adapter(),
    "scaled": lambda model: [
        m.scaling.update(default=9.0) for m in model.modules() if isinstance(m, peft.tuners.lora.LoraLayer)
    ],
    "its weights": lambda model: [
        p.data.mul_(-1) for name, p in model.named_parameters() if "lora_B.default" in name
    ],
    "deleted": lambda model: model.delete_adapter("default"),
}  # fmt: skip


@pytest.mark.parametrize("change", ADAPTERS)
def test_an_adapter_is_part_of_the_model(change: str, model: Any, inputs: Any) -> None:
    adapted = peft.get_peft_model(model, peft.LoraConfig(**SETTINGS))
    adapted.add_adapter("other", peft.LoraConfig(**SETTINGS, lora_alpha=20))
    pooled = Explainer(adapted, pool=KVPool(256, 4))
    before = pooled.explain_inputs(inputs, target_ids=TARGETS)
    ADAPTERS[change](adapted)
    assert gives_the_same(pooled, inputs)
    after = pooled.explain_inputs(inputs, target_ids=TARGETS)
    if change != "merged":
        assert (after.token_maps - before.token_maps).abs().max() > 1e-3 * before.token_maps.abs().max()


def test_an_adapter_switched_off_and_on_finds_its_entries_again(model: Any, inputs: Any) -> None:
    adapted = peft.get_peft_model(model, peft.LoraConfig(**SETTINGS))
    before = weights.state(adapted)
    with adapted.disable_adapter():
        assert weights.state(adapted) != before
    assert weights.state(adapted) == before


def reused(pooled: Explainer, inputs: Any) -> int:
    assert pooled.pool is not None
    before = pooled.pool.books.stats()["reused_slots"]
    pooled.explain_inputs(inputs, target_ids=TARGETS)
    return pooled.pool.books.stats()["reused_slots"] - before


def test_what_changes_no_key_loses_no_entry(model: Any, inputs: Any) -> None:
    pooled = Explainer(model, pool=KVPool(256, 4))
    assert reused(pooled, inputs) == 0
    whole = reused(pooled, inputs)
    assert whole > 0
    model.requires_grad_(False)
    assert reused(pooled, inputs) == whole
    model.requires_grad_(True)
    model.train()
    assert reused(pooled, inputs) == whole
    model.eval().zero_grad()
    assert reused(pooled, inputs) == whole


def test_another_dtype_is_refused_by_name_and_the_first_is_computed_anew(model: Any, inputs: Any) -> None:
    """bfloat16 and back leaves rounded weights."""
    pooled = Explainer(model, pool=KVPool(256, 4))
    pooled.explain_inputs(inputs, target_ids=TARGETS)
    model.bfloat16()
    with pytest.raises(CacheError, match=r"in float32 on cpu, and the model makes .* in bfloat16 on cpu: .* KVPool"):
        pooled.explain_inputs(inputs, target_ids=TARGETS)
    model.float()
    assert gives_the_same(pooled, inputs)


def test_two_models_over_one_pool_share_nothing(inputs: Any) -> None:
    first, pool = zoo.build("llava", torch.float32)[0], KVPool(512, 4)
    second = copy.deepcopy(first)
    an_edit_of_embeddings(second)
    for _ in range(2):
        for each in (first, second):
            assert gives_the_same(Explainer(each, pool=pool), inputs)


def test_the_head_may_be_tied_anew(model: Any, inputs: Any) -> None:
    pooled = Explainer(model, pool=KVPool(256, 4))
    pooled.explain_inputs(inputs, target_ids=TARGETS)
    model.lm_head.weight = model.get_input_embeddings().weight = nn.Parameter(model.lm_head.weight.flip(0))
    assert gives_the_same(pooled, inputs)


def test_features_of_the_last_images_belong_to_the_weights(inputs: Any) -> None:
    """Of prompts that share nothing else."""
    model, inputs = zoo.build("paligemma", torch.float32)
    pooled = Explainer(model, pool=KVPool(256, 4))
    pooled.explain_inputs(inputs, target_ids=TARGETS)
    an_edit_of_the_vision_tower(model)
    other = inputs | {"input_ids": inputs["input_ids"].clone()}
    other["input_ids"][0, -1] = 33
    assert gives_the_same(pooled, other)


def test_features_that_a_user_put_in_place_of_the_towers_stay(model: Any, inputs: Any) -> None:
    """As for a tower whose library is not installed, or features that were computed before."""
    features = model.model.get_image_features
    own = wraps(features)(lambda *args, **kwargs: features(*args, **kwargs))  # generate() goes by its signature
    model.model.get_image_features = own
    pooled = Explainer(model, pool=KVPool(256, 4))
    for _ in range(2):
        pooled.explain_inputs(inputs, target_ids=TARGETS)
        pooled.explain_inputs(inputs, max_new_tokens=2)
        assert vars(model.model)["get_image_features"] is own


def test_several_questions_and_streams_between_changes() -> None:
    processor = small_llava.processor()
    model = small_llava.model(processor.tokenizer)
    pooled, alone = Explainer(model, processor, pool=KVPool(512, 4)), Explainer(model, processor)
    image, prompts = Image.new("RGB", (32, 32), "red"), ["what is on the left", "what is on the right"]
    for _ in range(2):
        found = pooled.explain_many(image, prompts, max_new_tokens=4)
        with pooled.stream(image, prompts[0], chunk_size=1, max_new_tokens=4) as stream:
            list(stream)
            found.append(stream.explanation())
        wanted = [alone.explain(image, prompt, max_new_tokens=4) for prompt in (*prompts, prompts[0])]
        for one, other in zip(found, wanted, strict=True):
            assert one.token_ids.tolist() == other.token_ids.tolist()
            scale = other.unfiltered_token_maps.abs().max()
            assert (one.unfiltered_token_maps - other.unfiltered_token_maps).abs().max() <= 1e-4 * scale
        for weight in model.parameters():
            weight.data *= 1.25


def test_weights_may_change_while_a_stream_waits() -> None:
    """The keys of its prompt are those of the weights it began with."""
    processor = small_llava.processor()
    model = small_llava.model(processor.tokenizer)
    pooled = Explainer(model, processor, pool=KVPool(512, 4))
    image = Image.new("RGB", (32, 32), "red")
    with pooled.stream(image, "what is on the left", chunk_size=1, max_new_tokens=4) as stream:
        next(stream)
        for weight in model.parameters():
            weight.data *= 1.25
        list(stream)
    found, wanted = (
        each.explain(image, "what is on the left", "a red")
        for each in (pooled, Explainer(model, processor))
    )  # fmt: skip
    scale = wanted.unfiltered_token_maps.abs().max()
    assert (found.unfiltered_token_maps - wanted.unfiltered_token_maps).abs().max() <= 1e-4 * scale


def test_arguments_that_generate_hands_on_are_part_of_it(inputs: Any) -> None:
    model, inputs = zoo.build("llava", torch.float32)
    pooled = Explainer(model, pool=KVPool(256, 4))
    knobs = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}
    pooled.explain_inputs(inputs, **knobs)
    found, wanted = (
        each.explain_inputs(inputs, **knobs, vision_feature_layer=-1) for each in (pooled, Explainer(model))
    )
    scale = wanted.unfiltered_token_maps.abs().max()
    assert found.token_ids.tolist() == wanted.token_ids.tolist()
    assert (found.unfiltered_token_maps - wanted.unfiltered_token_maps).abs().max() <= 1e-4 * scale

"""Inputs and ids as processors and users hold them, and the tables that ids are looked up in."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import bad_input
import numpy as np
import pytest
import torch
import zoo
from bad_input import MODEL, PICTURE, PROCESSOR, TOKENIZER
from input_cases import TARGETS, asked, explained, made_for_inference, with_short_head
from torch import Tensor, nn
from transformers import BatchFeature

from dexar_fast import Explainer
from dexar_fast.errors import InputError
from dexar_fast.prompt import inputs


def nested(given: Any) -> dict[str, Any]:
    return {name: value.tolist() for name, value in given.items()}


FORMS: dict[str, Callable[[], Any]] = {
    "lists": lambda: asked(None),
    "arrays": lambda: asked("np"),
    "nested lists": lambda: nested(asked("np")),
    "flat ids": lambda: {name: v[0] if name in inputs.SEQUENCES else v for name, v in nested(asked("np")).items()},
    "a list of tensors": lambda: {name: list(value) for name, value in asked().items()},
    "float64 arrays": lambda: asked("np") | {"pixel_values": asked("np")["pixel_values"].astype(np.float64)},
    "a BatchFeature": lambda: BatchFeature(dict(asked())),
    "int32 ids": lambda: dict(asked()) | {"input_ids": asked()["input_ids"].int()},
    "a boolean mask": lambda: dict(asked()) | {"attention_mask": asked()["attention_mask"].bool()},
    "float64 pixels": lambda: dict(asked()) | {"pixel_values": asked()["pixel_values"].double()},
    "nothing for None": lambda: dict(asked()) | {"token_type_ids": None},
}


@pytest.mark.parametrize("form", FORMS)
def test_processor_output_in_other_forms(form: str) -> None:
    found = explained(FORMS[form]())
    bad_input.same(found, explained(asked()))
    assert found.unfiltered_token_maps.any()


def test_ids_alone_may_have_no_tensor_in_a_stream() -> None:
    pieces = list(Explainer(MODEL, PROCESSOR).stream_inputs(asked(None), max_new_tokens=2))
    assert sum(len(piece.tokens) for piece in pieces) >= 1


def test_what_a_forward_takes_as_a_list_stays_one() -> None:
    """Unlimited OCR's processor lists the tiles of each image, and its model splits by that."""

    class Splits(nn.Module):
        device = torch.device("cpu")

        def forward(self, input_ids: Tensor, num_local_patches: list[int] | None = None, sizes: Any = None) -> None:
            """Not run."""

    found = inputs.on_device(Splits(), {"input_ids": [[1, 2]], "num_local_patches": [2, 0], "sizes": [3]})
    assert found["num_local_patches"] == [2, 0]
    assert torch.equal(found["input_ids"], torch.tensor([[1, 2]])) and torch.equal(found["sizes"], torch.tensor([3]))


BAD: dict[str, tuple[str, Callable[[], Any]]] = {
    "ragged": ("pixel_values is no regular array", lambda: dict(asked()) | {"pixel_values": [[1.0], [1.0, 2.0]]}),
    "float ids": ("input_ids must be integers", lambda: dict(asked()) | {"input_ids": asked()["input_ids"].float()}),
    "boolean ids": ("input_ids must be integers", lambda: dict(asked()) | {"input_ids": asked()["input_ids"] > 0}),
    "the form of the output": ("inputs hold return_dict: pass", lambda: dict(asked()) | {"return_dict": False}),
    "places of another length": (
        "position_ids must be a tensor",
        lambda: dict(asked()) | {"position_ids": torch.arange(3)[None]},
    ),
    "text as ids": ("one prompt at a time", lambda: dict(asked()) | {"input_ids": ["the", "cat"]}),
}


@pytest.mark.parametrize("form", BAD)
def test_forms_that_mean_nothing(form: str) -> None:
    message, make = BAD[form]
    with pytest.raises(InputError, match=message):
        explained(make())


# Tables


class Wrapped(nn.Module):
    """An embedding or a head inside a module of somebody's own."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class TwoTables(nn.Module):
    """The last rows of a vocabulary in a table of their own."""

    def __init__(self, table: nn.Embedding, at: int) -> None:
        super().__init__()
        self.at = at
        self.first = nn.Embedding.from_pretrained(table.weight.detach()[:at].clone())
        self.second = nn.Embedding.from_pretrained(table.weight.detach()[at:].clone())

    def forward(self, ids: Tensor) -> Tensor:
        late = ids >= self.at
        first, second = self.first(ids.masked_fill(late, 0)), self.second((ids - self.at).clamp(min=0))
        return torch.where(late[..., None], second, first)


class Numbers(nn.Module):
    """A table that is no embedding."""

    def __init__(self, table: nn.Embedding) -> None:
        super().__init__()
        self.rows = table.weight.detach().clone()

    def forward(self, ids: Tensor) -> Tensor:
        return self.rows[ids]


def with_embedding(change: Callable[[nn.Embedding], nn.Module]) -> Any:
    model = copy.deepcopy(MODEL)
    model.set_input_embeddings(change(model.get_input_embeddings()))
    return model


def test_tables_of_other_kinds_are_looked_up_in() -> None:
    expected = explained(asked())
    kinds: list[Callable[[nn.Embedding], nn.Module]] = [Wrapped, lambda t: TwoTables(t, 260), Numbers]
    for kind in kinds:
        bad_input.same(explained(asked(), with_embedding(kind)), expected)


@pytest.mark.parametrize("wrap", [lambda head: head, Wrapped])
def test_targets_are_bounded_by_the_heads_rows(wrap: Callable[[nn.Module], nn.Module]) -> None:
    """The embedding has more."""
    rows = 300
    model = with_short_head(rows, wrap)
    explained(asked(), model, [rows - 1])
    with pytest.raises(InputError, match="0 to 299: its head has fewer rows than its embedding"):
        explained(asked(), model, [5, rows])
    warm = Explainer(model, PROCESSOR)
    warm.explain_inputs(asked(), [5])
    with pytest.raises(InputError, match="0 to 299"):
        warm.explain_inputs(asked(), [rows])


def behind_the_table(model: Any) -> Any:
    """The same model with a table that ends before the image's id."""
    table = model.get_input_embeddings()
    table.weight, table.num_embeddings = nn.Parameter(table.weight.detach()[: zoo.IMAGE].clone()), zoo.IMAGE
    return model


def test_a_placeholder_behind_the_table_that_is_never_looked_up() -> None:
    """PaliGemma embeds 0 in its place, where its config says that it lies there."""
    model, given = zoo.build("paligemma")
    expected = Explainer(model).explain_inputs(given, [5, 6])
    behind_the_table(model).model.vocab_size = zoo.IMAGE
    torch.testing.assert_close(Explainer(model).explain_inputs(given, [5, 6]).token_maps, expected.token_maps)


def test_a_placeholder_behind_the_table_that_is_looked_up() -> None:
    model, given = zoo.build("llava")
    with pytest.raises(InputError, match=f"embeds its image token {zoo.IMAGE}, and its table has {zoo.IMAGE} rows"):
        Explainer(behind_the_table(model)).explain_inputs(given, [5, 6])


def test_words_behind_the_table_are_refused() -> None:
    given = dict(asked())
    given["input_ids"] = given["input_ids"].clone()
    given["input_ids"][0, -1] = len(TOKENIZER)
    with pytest.raises(InputError, match=r"input_ids must hold ids of the vocabulary, 0 to \d+"):
        explained(given)


def test_a_resized_table_and_head() -> None:
    model = copy.deepcopy(MODEL)
    model.resize_token_embeddings(len(TOKENIZER) + 8)
    explained(asked(), model, [len(TOKENIZER) + 7])


# Configs whose layers differ


class Ambiguous(SimpleNamespace):
    """As transformers' configs are: what differs between layers cannot be read of the whole."""

    @property
    def num_attention_heads(self) -> int:
        raise RuntimeError("'num_attention_heads' is a per-layer attribute")


def test_of_numbers_that_differ_by_layer_the_largest() -> None:
    layers = [SimpleNamespace(num_attention_heads=heads) for heads in (2, 8, 4)] + [SimpleNamespace()]
    config = Ambiguous(per_layer_config=layers, max_position_embeddings=9)
    assert inputs.largest(config, "num_attention_heads") == 8
    assert inputs.largest(config, "max_position_embeddings") == 9
    assert inputs.largest(config, "none") is None


def test_a_real_config_whose_layers_differ() -> None:
    config = copy.deepcopy(MODEL.config.text_config)
    if not hasattr(type(config), "per_layer_config"):
        pytest.skip("this transformers has no per-layer configs")
    config.per_layer_config = {0: {"num_attention_heads": 2}}
    with pytest.raises(RuntimeError):
        _ = config.num_attention_heads
    assert inputs.largest(config, "num_attention_heads") == 4


# Weights made under inference_mode


@pytest.mark.parametrize("how", ["copied", "cast", "some"])
def test_weights_made_under_inference_mode(how: str) -> None:
    model = made_for_inference(how)
    assert any(parameter.is_inference() for parameter in model.parameters())
    before = {name: id(parameter) for name, parameter in model.named_parameters()}
    found = explained(asked(), model)
    plain = copy.deepcopy(MODEL).double() if how == "cast" else MODEL
    expected = explained(asked(), plain)
    for name in ("token_maps", "token_weights", "unfiltered_token_maps"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-5)
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == before


def test_tied_weights_made_under_inference_mode_and_a_warm_explainer() -> None:
    with torch.inference_mode():
        model = copy.deepcopy(MODEL)
        model.lm_head.weight = model.get_input_embeddings().weight
    plain = copy.deepcopy(MODEL)
    plain.lm_head.weight = plain.get_input_embeddings().weight
    explainer = Explainer(model, PROCESSOR)
    for _ in range(2):
        bad_input.same(explainer.explain_inputs(asked(), TARGETS, images=PICTURE), explained(asked(), plain))
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_inputs_made_under_inference_mode() -> None:
    with torch.inference_mode():
        given = {name: value.clone() for name, value in asked().items()}
        found = explained(given)
    bad_input.same(found, explained(asked()))

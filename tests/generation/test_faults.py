"""Whose fault an exception is: the model's, the inputs', generate()'s, a library's, ours, or the user's own."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import small_llava
import torch
from bad_input import ANSWER, PICTURE, PROCESSOR, PROMPT
from bad_models import fresh
from transformers import LogitsProcessor, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from dexar_fast import Explainer, InputError, ModelError
from dexar_fast.attribution import engine, sums
from dexar_fast.errors import DexarError, InternalError, LibraryError, NumericalError, OutOfMemoryError
from dexar_fast.model.lending.locks import model_lock

Run = Callable[..., Any]


def explained(model: Any, response: str | None = ANSWER, **arguments: Any) -> Any:
    return Explainer(model, PROCESSOR).explain(PICTURE, PROMPT, response, **arguments)


def generated(model: Any, **arguments: Any) -> Any:
    return explained(model, None, max_new_tokens=3, **arguments)


def streamed(model: Any, **arguments: Any) -> Any:
    return list(Explainer(model, PROCESSOR).stream(PICTURE, PROMPT, max_new_tokens=3, **arguments))


WAYS = [explained, generated, streamed]


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise error

    return fail


def broken(error: BaseException, name: str = "model.language_model.layers.0.mlp") -> Any:
    """A model whose own code raises."""
    model = fresh()
    model.get_submodule(name).forward = raising(error)
    return model


def refused(kind: type[DexarError], *words: str, call: Callable[[], Any]) -> DexarError:
    with pytest.raises(DexarError) as caught:
        call()
    assert type(caught.value) is kind, caught.value
    assert all(word in str(caught.value) for word in words), caught.value
    return caught.value


# The model's own forward


@pytest.mark.parametrize("run", WAYS)
@pytest.mark.parametrize(
    "error", [TypeError("no"), AssertionError(), KeyError("absent"), AttributeError("none"), NotImplementedError("not")]
)
def test_code_that_breaks_without_us_is_the_models(error: Exception, run: Run) -> None:
    words = ("LlavaForConditionalGeneration's own forward fails, without dexar_fast, too", type(error).__name__)
    caught = refused(ModelError, *words, call=lambda: run(broken(error)))
    assert caught.__cause__ is error


@pytest.mark.parametrize("run", WAYS)
@pytest.mark.parametrize(
    "error",
    [
        IndexError("out of range"),
        ValueError("bad"),
        RuntimeError("shapes"),
        TypeError("missing a required argument: 'x'"),
        AttributeError("'NoneType' object has no attribute 'shape'"),
    ],
)
def test_numbers_and_shapes_that_it_refuses_are_the_inputs(error: Exception, run: Run) -> None:
    refused(InputError, "the model refuses its inputs", type(error).__name__, call=lambda: run(broken(error)))


def failing_under_us(model: Any) -> None:
    """Only while the text decoder attends through our function."""
    mlp = model.get_submodule("model.language_model.layers.0.mlp")
    own = mlp.forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        if model.config.text_config._attn_implementation == "dexar_fast":
            raise KeyError("dexar_fast")
        return own(x)

    mlp.forward = forward


@pytest.mark.parametrize("part", ["lm_head", "model.language_model.layers.1", "model.multi_modal_projector"])
def test_weights_of_several_dtypes_are_not_the_inputs_fault(part: str) -> None:
    model = fresh(lambda model: model.get_submodule(part).half() and None)
    with pytest.raises(ModelError, match=r"weights of torch.float16 and torch.float32, which do not go together: cast"):
        Explainer(model, PROCESSOR).explain(PICTURE, PROMPT, ANSWER)


def test_a_config_that_breaks_the_forward_is_not_the_inputs_fault() -> None:
    model = fresh(lambda model: setattr(model.config.text_config, "return_dict", False))
    with pytest.raises(ModelError, match="own forward fails, without dexar_fast, too"):
        Explainer(model, PROCESSOR).explain(PICTURE, PROMPT, ANSWER)


def test_a_forward_that_fails_only_under_us_says_so() -> None:
    words = ("runs by itself on these inputs, but not as dexar_fast runs it", "KeyError")
    refused(ModelError, *words, call=lambda: explained(fresh(failing_under_us)))


@pytest.mark.parametrize("run", WAYS)
def test_the_model_is_left_free_and_as_it_was(run: Run) -> None:
    model = broken(TypeError("no"))
    before = model.config.text_config._attn_implementation
    with pytest.raises(ModelError):
        run(model)
    assert model.config.text_config._attn_implementation == before
    assert not model_lock(model)._is_owned()  # type: ignore[attr-defined]


# generate()


@pytest.mark.parametrize("run", [generated, streamed])
@pytest.mark.parametrize("error", [TypeError("no"), AssertionError(), ValueError("bad")])
def test_generate_that_fails_by_itself_is_the_models(error: Exception, run: Run) -> None:
    model = fresh()
    model.prepare_inputs_for_generation = raising(error)
    words = ("generate() of LlavaForConditionalGeneration fails", type(error).__name__)
    refused(ModelError, *words, call=lambda: run(model))


@pytest.mark.parametrize("run", [generated, streamed])
def test_generate_with_arguments_names_them(run: Run) -> None:
    refused(InputError, "generate()", "sunlight", call=lambda: run(fresh(), sunlight=True))


# Ours


@pytest.mark.parametrize("run", WAYS)
@pytest.mark.parametrize("error", [TypeError("no"), IndexError("no"), AssertionError(), KeyError("no")])
def test_our_own_faults_ask_for_a_report(error: Exception, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "explain", raising(error))
    monkeypatch.setattr(sums.LayerSums, "layer", raising(error))
    words = ("by a fault of its own; please report this", type(error).__name__)
    refused(InternalError, *words, call=lambda: run(fresh()))


# Libraries and the machine


@pytest.mark.parametrize("run", WAYS)
def test_a_library_that_is_missing_is_named(run: Run) -> None:
    error = ModuleNotFoundError("No module named 'absent'", name="absent")
    refused(LibraryError, "lacks a library", "No module named 'absent'", call=lambda: run(broken(error)))


def warning(model: Any) -> None:
    mlp = model.get_submodule("model.language_model.layers.0.mlp")
    own = mlp.forward

    def forward(x: torch.Tensor) -> torch.Tensor:
        warnings.warn("old", FutureWarning, stacklevel=1)
        return own(x)

    mlp.forward = forward


@pytest.mark.parametrize("run", WAYS)
def test_warnings_as_errors_are_told_as_such(run: Run) -> None:
    model = fresh(warning)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        refused(LibraryError, "warnings are errors in this program", "old", call=lambda: run(model))


@pytest.mark.parametrize("run", WAYS)
@pytest.mark.parametrize("error", [MemoryError("no room"), torch.OutOfMemoryError("out of memory")])
def test_memory_that_runs_out_is_told_as_such(error: Exception, run: Run) -> None:
    refused(OutOfMemoryError, "does not fit", call=lambda: run(broken(error)))


def test_nan_logits_cannot_be_sampled_from() -> None:
    model = fresh()
    torch.nn.init.constant_(model.lm_head.weight, float("nan"))
    refused(NumericalError, "NaN", call=lambda: generated(model, do_sample=True))


# The user's own code


class Mine(Exception):
    """What the user's code raises."""


class Reader(BaseStreamer):
    def put(self, value: Any) -> None:
        raise Mine

    def end(self) -> None:
        """Never reached."""


class Scores(LogitsProcessor):
    def __call__(self, input_ids: Any, scores: Any) -> Any:
        raise Mine


class Stop(StoppingCriteria):
    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        raise Mine


def allowed(what: str, batch: int, ids: Any) -> list[int]:
    raise Mine(what)


CALLBACKS = {
    "logits_processor": lambda: [Scores()],
    "stopping_criteria": lambda: [Stop()],
    "prefix_allowed_tokens_fn": lambda: partial(allowed, "mine"),
    "streamer": Reader,
}


@pytest.mark.parametrize("run", [generated, streamed])
@pytest.mark.parametrize("name", CALLBACKS)
def test_what_the_users_callbacks_raise_passes_as_it_is(name: str, run: Run) -> None:
    with pytest.raises(Mine):
        run(fresh(), **{name: CALLBACKS[name]()})


@pytest.mark.parametrize("run", WAYS)
@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
@pytest.mark.parametrize("name", ["lm_head", "model.language_model.layers.0.mlp", "model.vision_tower"])
def test_what_the_users_hooks_raise_passes_as_it_is(name: str, register: str, run: Run) -> None:
    def hook(*args: Any) -> None:
        raise Mine

    model = fresh()
    getattr(model.get_submodule(name), register)(hook)
    with pytest.raises(Mine):
        run(model)


class Hook:
    """A hook that is an object of the user's, and helps itself."""

    def __call__(self, *args: Any) -> None:
        self.helped()

    def helped(self) -> None:
        raise IndexError("mine")


@pytest.mark.parametrize("hook", [Hook(), Hook().__call__, partial(Hook())])
def test_hooks_of_any_kind_are_the_users(hook: Any) -> None:
    model = fresh()
    model.lm_head.register_forward_hook(hook)
    with pytest.raises(IndexError, match="mine") as caught:
        explained(model)
    assert not isinstance(caught.value, DexarError)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_what_is_no_error_passes_as_it_is(error: BaseException) -> None:
    with pytest.raises(type(error)):
        explained(broken(error))


def test_ours_passes_as_it_is() -> None:
    """A DexarError from inside is not judged anew."""
    error = NumericalError("NaN in layer 1")
    with pytest.raises(NumericalError) as caught:
        explained(broken(error))
    assert caught.value is error


def test_inputs_that_the_processor_made_are_judged_alike() -> None:
    text = f"USER: {small_llava.IMAGE}\n{PROMPT} ASSISTANT:"
    inputs = dict(PROCESSOR(images=[PICTURE], text=text, return_tensors="pt"))
    explainer = Explainer(broken(TypeError("no")), PROCESSOR)
    refused(ModelError, "own forward fails", call=lambda: explainer.explain_inputs(inputs, [5]))

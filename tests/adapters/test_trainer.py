"""A real Trainer, two steps of a tiny LLaVA, with our callback: what it logs, and that the run does not notice it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import small_llava
import torch
from transformers import PreTrainedModel, Trainer, TrainingArguments

from dexar_fast import Explainer, InputError, ModelError
from dexar_fast.adapters.trainer import MapsCallback

TOKENIZER = small_llava.byte_level()
PROCESSOR = small_llava.processor(TOKENIZER)
PICTURE = small_llava.noise()
PROMPT, ANSWER = "Describe the image.", "the cat is on it"
REQUESTS = [(PICTURE, PROMPT, ANSWER), (PICTURE, PROMPT)]


class Writer:
    """What SummaryWriter is asked for, kept."""

    def __init__(self) -> None:
        self.images: dict[tuple[str, int], np.ndarray] = {}
        self.texts: dict[tuple[str, int], str] = {}

    def add_image(self, name: str, pixels: np.ndarray, step: int, dataformats: str) -> None:
        assert dataformats == "HWC" and pixels.dtype == np.uint8
        self.images[name, step] = pixels

    def add_text(self, name: str, text: str, step: int) -> None:
        self.texts[name, step] = text

    def flush(self) -> None:
        pass


def model() -> PreTrainedModel:
    """It drops states at random, so that a number drawn between would change what it learns."""
    built = small_llava.model(TOKENIZER, attention_dropout=0.3)
    built.generation_config.max_new_tokens = 4
    return built


def data() -> list[dict[str, torch.Tensor]]:
    text = f"USER: {small_llava.IMAGE}\n{PROMPT} ASSISTANT: the cat is red"
    inputs = PROCESSOR(images=PICTURE, text=text, return_tensors="pt")
    one = {name: value[0] for name, value in inputs.items()}
    return [one | {"labels": one["input_ids"].clone()}] * 4


def trained(folder: Path, *callbacks: Any, **more: Any) -> PreTrainedModel:
    settings = {"max_steps": 2, "per_device_train_batch_size": 1, "learning_rate": 0.01, "report_to": "none"}
    args = TrainingArguments(str(folder), use_cpu=True, save_strategy="no", disable_tqdm=True, **settings | more)
    trainer = Trainer(model(), args, train_dataset=data(), callbacks=list(callbacks))
    trainer.train()
    return trainer.model


@pytest.fixture
def state() -> Iterator[Any]:
    yield SimpleNamespace(is_world_process_zero=True, global_step=0)


@pytest.mark.parametrize("more", [{}, {"bf16": True, "gradient_accumulation_steps": 2}])
def test_a_run_learns_the_same_with_and_without_it(tmp_path: Path, more: dict[str, Any]) -> None:
    writer = Writer()
    alone = trained(tmp_path / "a", **more)
    watched = trained(tmp_path / "b", MapsCallback(PROCESSOR, REQUESTS, writer, every=1, max_new_tokens=4), **more)
    for (name, one), other in zip(alone.state_dict().items(), watched.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    assert sorted(writer.images) == [(f"maps/{n}", step) for n in range(2) for step in range(3)]
    expected = Explainer(model(), PROCESSOR).explain(*REQUESTS[0])
    np.testing.assert_array_equal(writer.images["maps/0", 0], np.asarray(expected.overlay()))
    assert writer.texts["maps/0/answer", 0] == " " + ANSWER and writer.texts["maps/1/answer", 2]
    assert not np.array_equal(writer.images["maps/0", 0], writer.images["maps/0", 2])


def test_every_n_steps(tmp_path: Path) -> None:
    writer = Writer()
    trained(tmp_path, MapsCallback(PROCESSOR, REQUESTS[:1], writer, every=2), max_steps=4)
    assert sorted(writer.images) == [("maps/0", 0), ("maps/0", 2), ("maps/0", 4)]


def test_the_model_is_left_as_it_was(state: Any) -> None:
    """Amid a step: training mode, gradients, and every source of random numbers."""
    training = model().train()
    batch = {name: value[None] for name, value in data()[0].items()}
    training(**batch).loss.backward()
    grads = {name: each.grad.clone() for name, each in training.named_parameters() if each.grad is not None}
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    callback = MapsCallback(PROCESSOR, REQUESTS, Writer(), every=1, max_new_tokens=4)
    callback.on_train_begin(None, state, None, model=training)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]
    assert all(module.training for module in training.modules()) and torch.is_grad_enabled()
    assert grads and all(
        torch.equal(each.grad, grads[name]) for name, each in training.named_parameters() if name in grads
    )
    assert not any(each.grad is not None for name, each in training.named_parameters() if name not in grads)


def test_only_the_first_process_explains(state: Any) -> None:
    state.is_world_process_zero = False
    writer = Writer()
    callback = MapsCallback(PROCESSOR, REQUESTS, writer, every=1)
    callback.on_train_begin(None, state, None, model=model())
    callback.on_step_end(None, state, None, model=None)
    assert not writer.images


def test_a_request_that_fails_later_is_a_warning(state: Any) -> None:
    training, writer = model(), Writer()
    callback = MapsCallback(PROCESSOR, REQUESTS, writer, every=1, max_new_tokens=4)
    callback.on_train_begin(None, state, None, model=training)
    with torch.no_grad():
        training.lm_head.weight.fill_(torch.nan)
    state.global_step = 1
    with pytest.warns(UserWarning, match="maps/0 at step 1: "):
        callback.on_step_end(None, state, None)
    assert sorted(step for _, step in writer.images) == [0, 0]


def test_what_is_refused(state: Any) -> None:
    with pytest.raises(InputError, match='to must be a SummaryWriter or "trackio", not a int'):
        MapsCallback(PROCESSOR, REQUESTS, 7)
    with pytest.raises(InputError, match="every 0"):
        MapsCallback(PROCESSOR, REQUESTS, Writer(), every=0)
    with pytest.raises(InputError, match="a request must be"):
        MapsCallback(PROCESSOR, [PICTURE], Writer()).on_train_begin(None, state, None, model=model())
    spread = model()
    next(spread.parameters()).device_mesh = None
    with pytest.raises(ModelError, match="spread over processes"):
        MapsCallback(PROCESSOR, REQUESTS, Writer()).on_train_begin(None, state, None, model=spread)


def test_tensorboard_reads_what_was_logged(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path / "events") as writer:
        trained(tmp_path / "run", MapsCallback(PROCESSOR, REQUESTS[:1], writer, every=2))
    events = accumulator.EventAccumulator(str(tmp_path / "events"), size_guidance={"images": 0}).Reload()
    assert [event.step for event in events.Images("maps/0")] == [0, 2]
    first = events.Images("maps/0")[0]
    assert (first.width, first.height) == Explainer(model(), PROCESSOR).explain(*REQUESTS[0]).overlay().size
    (told, _) = events.Tensors("maps/0/answer/text_summary")
    assert told.tensor_proto.string_val[0].decode() == " " + ANSWER


def test_trackio_reads_what_was_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read on import
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    callback = MapsCallback(PROCESSOR, REQUESTS[:1], "trackio", every=2)
    trained(tmp_path / "run", callback, report_to="trackio", project="maps", run_name="tiny")
    logged = [row for row in SQLiteStorage.get_logs("maps", "tiny") if "maps/0" in row]
    assert [row["step"] for row in logged] == [0, 2]
    assert logged[0]["maps/0"]["caption"] == " " + ANSWER and logged[0]["maps/0/answer"] == " " + ANSWER
    assert Path(logged[0]["maps/0"]["file_path"]).suffix == ".png"

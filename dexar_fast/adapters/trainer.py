"""A callback of transformers' Trainer: the maps of fixed pictures while a model is fine-tuned.

Trainer(model, ..., callbacks=[MapsCallback(processor, [(image, "What is this?")], SummaryWriter("runs/maps"))])
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from dexar_fast.data.libraries import library
from dexar_fast.errors import InputError, ModelError
from dexar_fast.explainer import Explainer
from dexar_fast.explanation import Explanation
from dexar_fast.prompt.request import listed
from dexar_fast.settings import positive

TRACKIO = "trackio"
SHARDED = ("device_mesh", "ds_id", "_sharded_size")  # of the parameters of FSDP 2, DeepSpeed's ZeRO 3 and FSDP 1


class MapsCallback(TrainerCallback):
    """Explains the same requests before the first step and after every `every` steps, and logs what it finds.

    Of request n: "maps/n", the picture under the map of the whole answer, and "maps/n/answer", its text. The model is
    left as it was, training mode, gradients and random numbers included. With several processes the first explains, the
    others go on to their next reduction and wait there. An answer that cannot be explained later in the training is
    a warning: it does not end the run.

    Args:
        processor: the model's own.
        requests: (image, prompt) or (image, prompt, response), as `Explainer.explain_batch` takes them.
        to: a SummaryWriter of TensorBoard, perhaps the one that Trainer's own TensorBoardCallback(writer) has; or
            "trackio", for the run that Trainer (report_to="trackio") or trackio.init() has begun.
        every: steps of the optimiser.
        max_new_tokens: of an answer that the model writes, greedily.
        knobs: of `Explainer`.
    Raises:
        InputError: an option that is none; and as training begins, a request that cannot be explained.
        ModelError: as training begins, a model whose parameters are spread over processes. LibraryError: no trackio.
    """

    def __init__(
        self,
        processor: Any,
        requests: Sequence[tuple[Any, ...]],
        to: Any,
        *,
        every: int = 100,
        max_new_tokens: int = 64,
        **knobs: Any,
    ) -> None:
        if not hasattr(to, "add_image") and to != TRACKIO:
            raise InputError(f'to must be a SummaryWriter or "trackio", not a {type(to).__name__}')
        if to == TRACKIO:
            library(TRACKIO, "logging to trackio", "'dexar-fast[trackio]'")
        self._processor = processor
        self._requests = listed("requests", requests)
        self._to = to
        self._every = positive("every", every)
        self._max_new_tokens = positive("max_new_tokens", max_new_tokens)
        self._knobs = knobs
        self._explainer: Explainer | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        if any(hasattr(parameter, name) for parameter in model.parameters() for name in SHARDED):
            raise ModelError(
                "the parameters are spread over processes, and one alone cannot run the model: leave maps out"
            )
        self._explainer = Explainer(model, self._processor, **self._knobs)
        found = self._explained(self._explainer)
        for each in found:
            if isinstance(each, Exception):
                raise each
        self._log(found, state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._explainer is not None and state.global_step % self._every == 0:
            self._log(self._explained(self._explainer), state.global_step)

    def _explained(self, explainer: Explainer) -> list[Explanation | Exception]:
        """What comes of each request; torch's random numbers go on as if nothing had been."""
        device = torch.device(explainer.model.device)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            greedy = {"max_new_tokens": self._max_new_tokens, "do_sample": False}
            return explainer.explain_batch(self._requests, **greedy)

    def _log(self, found: list[Explanation | Exception], step: int) -> None:
        for n, each in enumerate(found):
            if isinstance(each, Exception):
                warnings.warn(f"maps/{n} at step {step}: {each}", stacklevel=2)
            elif self._to == TRACKIO:
                _to_trackio(f"maps/{n}", each, step)
            else:
                _to_tensorboard(self._to, f"maps/{n}", each, step)


def _to_tensorboard(writer: Any, name: str, explanation: Explanation, step: int) -> None:
    writer.add_image(name, np.asarray(explanation.overlay()), step, dataformats="HWC")
    writer.add_text(f"{name}/answer", explanation.text, step)
    writer.flush()


def _to_trackio(name: str, explanation: Explanation, step: int) -> None:
    trackio = library(TRACKIO, "logging to trackio", "'dexar-fast[trackio]'")
    picture = trackio.Image(explanation.overlay(), caption=explanation.text)
    trackio.log({name: picture, f"{name}/answer": explanation.text}, step=step)

"""Inputs in the forms that users hold."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from bad_input import MODEL, PICTURE, PROCESSOR, TOKENIZER
from torch import nn

from dexar_fast import Explainer

TEXT = "<image>\nthe cat is red"


TARGETS = TOKENIZER("the cat", add_special_tokens=False).input_ids


def asked(kind: str | None = "pt") -> Any:
    return PROCESSOR(images=PICTURE, text=TEXT, return_tensors=kind)


def explained(given: Any, model: Any = MODEL, targets: Any = TARGETS) -> Any:
    return Explainer(model, PROCESSOR).explain_inputs(given, targets, images=PICTURE)


def with_short_head(rows: int, wrap: Callable[[nn.Module], nn.Module] = lambda head: head) -> Any:
    model = copy.deepcopy(MODEL)
    head = nn.Linear(32, rows, bias=False)
    head.weight = nn.Parameter(MODEL.lm_head.weight.detach()[:rows].clone())
    model.lm_head = wrap(head)
    return model


def made_for_inference(how: str) -> Any:
    model = copy.deepcopy(MODEL)
    with torch.inference_mode():
        if how == "copied":
            return copy.deepcopy(model)
        if how == "cast":
            return model.double()
        for module in model.get_submodule("model.language_model.layers")[0].modules():
            for name, parameter in list(module._parameters.items()):
                if parameter is not None:
                    setattr(module, name, nn.Parameter(parameter.clone()))
    return model

"""What the other methods of explanation cost.

On a LLaVA of random weights in float32: text width 512, 4 layers, 24 x 24 visual tokens, 32,000 ids, P = 620.

- TAM of a given answer, from the last hidden states, against its formula: the logits of the whole vocabulary at all
  positions, and for each word a minimiser and a filter. The filter runs window by window, or on all windows at once.
  Both need the same forward, which is timed beside them.
- The methods of gradients of a short given answer, over one plain forward; AttnLRP beside one forward and backward for
  each token, and of a weighted sum of the tokens.
- The methods that hide parts of the picture, of a given answer of the embedded model, over one plain forward. Their
  forwards run in batches, so that each costs less than one alone.
- The attention methods of a given answer, over one plain forward of the same tokens. Relevancy, with a backward for
  each token, is measured on the shorter answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench import attention_formula, tam_formula
from bench.gates import BOUND, Gate, checked, difference
from bench.groups import Benchmark, Group, timed
from bench.options import Options
from bench.subjects import Subject, subject
from bench.timing import Job
from dexar_fast import Explainer
from dexar_fast.cli.explain import SAMPLE_IMAGE
from dexar_fast.methods.activation.tam import Tam
from dexar_fast.methods.attention.gradient import AttentionGradient
from dexar_fast.methods.attention.raw import Attention
from dexar_fast.methods.attention.relevancy import Relevancy
from dexar_fast.methods.attention.rollout import Rollout
from dexar_fast.methods.base import Asked, Method
from dexar_fast.methods.gradient.attn_lrp import AttnLrp
from dexar_fast.methods.gradient.forward import recorded, unchanged
from dexar_fast.methods.gradient.integrated import IntegratedGradients
from dexar_fast.methods.gradient.plain import GradientXInput, InputGradient, product
from dexar_fast.methods.gradient.rules import AttnLrpRules
from dexar_fast.methods.gradient.smooth import SmoothGrad
from dexar_fast.model.lending.session import borrowed
from dexar_fast.model.prefill import Prefix, prefill, with_answer
from dexar_fast.model.teacher_forcing import head_inputs
from dexar_fast.profile.shapes import build
from dexar_fast.vision.geometry import layout
from dexar_fast.vision.images import load_images

TOKENS = (64, 16)
VOCABULARY = 32_000
FORMULA = 1e-4  # its minimiser stops early
FILTERS = {"window by window": tam_formula.one_by_one, "all at once": tam_formula.at_once}
ATTENTION: dict[str, Method] = {
    "attention": Attention(),
    "attention-gradient": AttentionGradient(),
    "attention-gradient of=final": AttentionGradient(of="final"),
    "rollout": Rollout(),
    "relevancy": Relevancy(),
}
FEW_ROUNDS = 3
GRADIENT: dict[str, Method] = {
    "input-gradient": InputGradient(),
    "gradient-x-input": GradientXInput(),
    "integrated-gradients, 4 steps": IntegratedGradients(steps=4),
    "smoothgrad, 4 samples": SmoothGrad(samples=4),
    "attn-lrp": AttnLrp(),
    "attn-lrp of a sum": AttnLrp(tokens=()),
}
HIDDEN = {  # by name: the knobs
    "occlusion": "regions=64",
    "rise": "samples=256",
    "shapley": "regions=16,samples=16",
    "captum": "regions=16,samples=16",
    "eagle": "regions=36",
    "igos++": "tokens=[],side=16",
}
SAMPLE = ("Describe the image.", " A red triangle, a yellow circle and a blue square.")
MANY_FORWARDS = ("integrated-gradients, 4 steps", "smoothgrad, 4 samples", "one by one")


@contextmanager
def asked(found: Subject) -> Iterator[Asked]:
    """A subject as a method gets it: the model is on loan inside the block."""
    model, inputs = found.model, found.inputs
    with borrowed(model):
        decoder = prefill(model, inputs, None, Prefix(model.config)).decoder
        placed = layout(model.config, None, inputs, None)
        yield Asked(model, None, decoder, inputs, found.targets.cpu(), (), placed.positions, placed.grids)


def gates(options: Options) -> list[Gate]:
    """On a tiny model in float64, each method equals another way to the same maps."""
    found = checked(options)
    with asked(found) as request:
        normed = head_rows(request)
        maps = Tam().maps_of(normed, request).token_maps
        ways = [
            Gate(f"TAM = formula, {name}", difference(maps, tam_formula.maps(found, normed, way)), FORMULA)
            for name, way in FILTERS.items()
        ]
        found_maps = {name: method.maps(request).token_maps for name, method in ATTENTION.items()}
    expected = attention_formula.maps(found)
    return ways + [Gate(f"{name} = formula", difference(found_maps[name], expected[name]), BOUND) for name in ATTENTION]


def tam(tokens: int, rounds: int) -> Group:
    """The formula over TAM, from the last hidden states; and the forward that makes these."""
    found = subject(build("llava-512", vocabulary=VOCABULARY), tokens)
    with asked(found) as request:
        normed = head_rows(request)
        formula = [
            Job(name, f"the formula, filter {name}", partial(tam_formula.maps, found, normed, way))
            for name, way in FILTERS.items()
        ]
        jobs = [
            Job("tam", "Tam.maps_of", lambda: Tam().maps_of(normed, request)),
            *formula,
            Job("forward", "one plain no-grad forward of prompt and answer", found.forward),
        ]
        parameters = {"kind": "TAM", "tokens": tokens, "prompt": found.prompt}
        return timed(f"TAM, T={tokens}", parameters, jobs, rounds=rounds, floor="tam")


def attention(tokens: int, rounds: int) -> Group:
    """The attention methods over one plain forward of prompt and answer."""
    found = subject(build("llava-512"), tokens)
    with asked(found) as request:
        methods = [
            Job(name, f"{method}.maps", partial(method.maps, request), FEW_ROUNDS if name == "relevancy" else None)
            for name, method in ATTENTION.items()
            if name != "relevancy" or tokens == min(TOKENS)
        ]
        jobs = [Job("forward", "one plain no-grad forward of prompt and answer", found.forward), *methods]
        parameters = {"kind": "attention", "tokens": tokens, "prompt": found.prompt}
        return timed(f"attention, T={tokens}", parameters, jobs, rounds=rounds, floor="forward")


def gradient(tokens: int, rounds: int) -> Group:
    """The methods of gradients over one plain forward of prompt and answer."""
    found = subject(build("llava-512"), tokens)
    with asked(found) as request:
        methods = [Job(name, f"{method}.maps", partial(method.maps, request)) for name, method in GRADIENT.items()]
        alone = Job("one by one", "AttnLRP with a forward and a backward for each token", partial(_one_by_one, request))
        plain = Job("forward", "one plain no-grad forward of prompt and answer", found.forward)
        jobs = [replace(job, rounds=FEW_ROUNDS if job.name in MANY_FORWARDS else None) for job in (*methods, alone)]
        parameters = {"kind": "gradient", "tokens": tokens, "prompt": found.prompt}
        return timed(f"gradient, T={tokens}", parameters, [plain, *jobs], rounds=rounds, floor="forward")


def hidden(rounds: int) -> Group:
    """The methods that hide parts, on the sample of the embedded model."""
    explainer = Explainer.from_pretrained()
    prompt, answer = SAMPLE
    picture = load_images(str(SAMPLE_IMAGE))[0]
    asked_of = [explainer.with_method(f"{name}:{knobs}") for name, knobs in HIDDEN.items()]
    jobs = [Job("forward", "one plain no-grad forward of prompt and answer", _forward(explainer, picture))]
    for each, (name, knobs) in zip(asked_of, HIDDEN.items(), strict=True):
        jobs.append(Job(name, f"explain() by {name}:{knobs}", partial(each.explain, picture, prompt, answer)))
    return timed(
        "hidden parts", {"kind": "hidden", "prompt": prompt, "answer": answer}, jobs, rounds=rounds, floor="forward"
    )


def _forward(explainer: Explainer, picture: Any) -> Callable[[], Any]:
    """One plain forward of the sample's prompt and answer."""
    request = explainer._read([picture], *SAMPLE)
    assert request.targets is not None  # the answer is given
    whole = with_answer(request.inputs, request.targets)
    return lambda: torch.no_grad()(explainer.model)(**whole, use_cache=False)


def _one_by_one(request: Asked) -> list[Tensor]:
    """The map of each token from a forward of its own."""
    found = []
    for token in range(len(request.targets)):
        run = recorded(request, unchanged, AttnLrpRules)
        found.append(product(run.leaves, run.gradient(run.logits[token])).relu())
    return found


@torch.no_grad()
def head_rows(request: Asked) -> Tensor:
    return head_inputs(request.model, request.inputs, request.targets[:-1], request.decoder, request.visual)


def groups(options: Options) -> Iterator[Group]:
    for tokens in options.sizes(TOKENS):
        yield tam(tokens, options.rounds_of(9))
    for tokens in options.sizes(TOKENS):
        yield attention(tokens, options.rounds_of(9))
    yield gradient(min(TOKENS), options.rounds_of(9))
    yield hidden(options.rounds_of(FEW_ROUNDS))


BENCHMARK = Benchmark("methods", "what the other methods of explanation cost", gates, groups)

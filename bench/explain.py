"""What an explanation costs over what it cannot do without.

Two comparisons, on a LLaVA of random weights (text width 512, 24 x 24 visual tokens, prompt of 620 tokens, float32):

- a given answer: explaining it, over one plain no-grad forward of the same P + T tokens. The forward computes the last
  logits only, as the explanation's own does; the difference is the backward of each layer's tail, the scoring, and that
  the answer runs in chunks behind the prompt.
- a generated answer: generating and explaining it, over the model's generate() alone with the same attention and cache.
"""

from __future__ import annotations

from collections.abc import Iterator

from transformers import DynamicCache

from bench.gates import same_arrays
from bench.groups import Benchmark, Group, timed
from bench.options import Options
from bench.subjects import subject
from bench.timing import Job
from dexar_fast import Explainer
from dexar_fast.model.cache import to_generate
from dexar_fast.profile.shapes import build

LAYERS = (4, 8)
GIVEN = (16, 64, 256)
GENERATED = (64, 256)


def given_answer(layers: int, tokens: int, rounds: int) -> Group:
    """Explaining a given answer over one plain forward of prompt and answer."""
    found = subject(build("llava-512", layers=layers), tokens)
    explainer = Explainer(found.model)
    jobs = [
        Job("forward", "one plain no-grad forward of prompt and answer", found.forward),
        Job(
            "explain",
            "Explainer.explain_inputs of the given answer",
            lambda: explainer.explain_inputs(found.inputs, target_ids=found.targets),
        ),
    ]
    parameters = {"kind": "given", "layers": layers, "tokens": tokens, "prompt": found.prompt}
    return timed(f"given answer, L={layers}, T={tokens}", parameters, jobs, rounds=rounds, floor="forward")


def generated_answer(layers: int, tokens: int, rounds: int) -> Group:
    """Generating and explaining an answer over generating it."""
    found = subject(build("llava-512", layers=layers), tokens)
    explainer = Explainer(found.model)
    jobs = [
        Job("generate", "generate() with a dynamic cache", lambda: found.generate(**to_generate(DynamicCache()))),
        Job(
            "explain",
            "Explainer.explain_inputs that generates the same tokens, then explains them",
            lambda: explainer.explain_inputs(found.inputs, max_new_tokens=tokens, do_sample=False),
        ),
    ]
    parameters = {"kind": "generated", "layers": layers, "tokens": tokens, "prompt": found.prompt}
    return timed(f"generated answer, L={layers}, T={tokens}", parameters, jobs, rounds=rounds, floor="generate")


def groups(options: Options) -> Iterator[Group]:
    for layers in options.sizes(LAYERS):
        for tokens in options.sizes(GIVEN):
            yield given_answer(layers, tokens, options.rounds_of(15))
    for layers in options.sizes(LAYERS):
        for tokens in options.sizes(GENERATED):
            yield generated_answer(layers, tokens, options.rounds_of(5))


BENCHMARK = Benchmark("explain", "an explanation over a plain forward, and over plain generation", same_arrays, groups)

"""The explanation beside other ways to the same maps, in interleaved rounds of one run.

On a LLaVA of random weights (text width 512, 4 layers, 24 x 24 visual tokens, prompt of 620 tokens, float32). All jobs
of a group take the same prompt and answer and give every token its map; the gates hold the first four to each other.

- forward: no explanation at all, one plain no-grad forward of prompt and answer: the floor.
- explain: this project.
- full_length: one forward of the whole sequence with its graph, then one backward per layer through all positions.
- cached: token by token over a KV cache, one query's graph, one backward per layer.
- authors: the loop of the DEX-AR authors' code in our own words: for every token an eager forward of all tokens so far
  with its graph and its attention matrices, then one full-length backward per layer. Their package itself cannot stand
  beside ours: it needs transformers 4.45 (its requirements.txt, at cb8899b), dexar_fast 5.
- captum: another question (how much each token's log-probability falls without a patch), but the one attribution of
  every token to every patch that Captum's LLM attribution offers: LLMAttribution over FeatureAblation with an
  ImageMaskInput of one feature per visual token: one forward for each.

And generation: generate() with a dynamic cache (the floor) and with a static one, and generating with explaining.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from transformers import DynamicCache

from bench import rival_methods
from bench.captum_ablation import attribution, missing
from bench.gates import same_arrays
from bench.groups import Benchmark, Group, timed
from bench.options import Options
from bench.subjects import Subject, subject
from bench.timing import Job
from dexar_fast import Explainer
from dexar_fast.model.cache import to_generate
from dexar_fast.profile.shapes import build

LAYERS = 4
TOKENS = {16: 3, 64: 2, 256: 1}  # T, and how often the slow jobs are run there
CAPTUM_TOKENS = 16  # its cost hardly depends on T: one forward per patch


def given_answer(found: Subject, rounds: int, slow_rounds: int) -> Group:
    """All ways to explain a given answer, over one plain forward of prompt and answer."""
    tokens = len(found.targets)
    explainer = Explainer(found.model)
    jobs = [
        Job("forward", "one plain no-grad forward of prompt and answer", found.forward),
        Job(
            "explain",
            "Explainer.explain_inputs of the given answer",
            lambda: explainer.explain_inputs(found.inputs, target_ids=found.targets),
        ),
        Job(
            "full_length", "one forward with its graph, a backward per layer", partial(rival_methods.full_length, found)
        ),
        Job("cached", "autograd token by token over a KV cache", partial(rival_methods.cached, found), slow_rounds),
        Job("authors", "the authors' loop, re-implemented", partial(rival_methods.authors, found), slow_rounds),
    ]
    notes = {}
    if tokens == CAPTUM_TOKENS:
        reason = missing()
        if reason:
            notes["captum"] = f"skipped: {reason}"
            print("captum", notes["captum"])
        else:
            jobs.append(Job("captum", "Captum: one forward without each visual token", attribution(found), 1))
    parameters = {"kind": "given", "layers": LAYERS, "tokens": tokens, "prompt": found.prompt}
    return timed(f"given answer, T={tokens}", parameters, jobs, rounds=rounds, floor="forward", notes=notes)


def generation(found: Subject, rounds: int) -> Group:
    """Plain generation with either cache, and with the explanation."""
    tokens = len(found.targets)
    explainer = Explainer(found.model)
    jobs = [
        Job("dynamic", "generate() with a dynamic cache", lambda: found.generate(**to_generate(DynamicCache()))),
        Job(
            "static",
            "generate() with a static cache (which transformers compiles for on a GPU, not on a CPU)",
            lambda: found.generate(cache_implementation="static"),
        ),
        Job(
            "explain",
            "generating with a dynamic cache, then explaining",
            lambda: explainer.explain_inputs(found.inputs, max_new_tokens=tokens, do_sample=False),
        ),
    ]
    parameters = {"kind": "generated", "layers": LAYERS, "tokens": tokens, "prompt": found.prompt}
    return timed(f"generated answer, T={tokens}", parameters, jobs, rounds=rounds, floor="dynamic")


def groups(options: Options) -> Iterator[Group]:
    built = build("llava-512", layers=LAYERS, grid=6 if options.quick else 24)
    for tokens in options.sizes(list(TOKENS)):
        yield given_answer(subject(built, tokens), options.rounds_of(7), TOKENS[tokens])
    yield generation(subject(built, tokens=8 if options.quick else 64), options.rounds_of(5))


BENCHMARK = Benchmark("rivals", "the explanation beside other ways to the same maps", same_arrays, groups)

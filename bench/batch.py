"""What many requests cost at once, and one beside them.

Side by side, of `Explainer.explain_batch`:
- embedded model, 64 pictures, answers written: `batch` of 16; `loop` of explain(); `plain`, processor and generate()
  alone in the same batches;
- a LLaVA of random weights (text width 512, 4 layers, 24 x 24 visual tokens), 8 pictures: 64 tokens each written, by
  `batch`, `loop` and `plain`; and 16 tokens each given, by `batch`, and `plain`, one forward of prompt and answer each.

And what other benchmarks compare in more detail: one given answer over a plain forward (`explain`), a second question
about a picture over one from scratch (`cache`), and a long answer that is streamed over one that is generated (`long`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image

from bench import long_answer
from bench.cache import second_question
from bench.explain import GIVEN as GIVEN_ALONE
from bench.explain import given_answer
from bench.gates import BOUND, Gate, agreement
from bench.groups import Benchmark, Group, timed
from bench.options import Options
from bench.subjects import Subject, subject
from bench.timing import Job
from dexar_fast import Explainer, Explanation
from dexar_fast.cli.explain import SAMPLE_IMAGE, SAMPLE_PROMPT
from dexar_fast.generation.batch.joining import joined
from dexar_fast.profile.shapes import build
from dexar_fast.prompt import prompting

PICTURES, BATCH = 64, 16
SIZE = 8  # of the LLaVA's batches
WRITTEN, GIVEN = 64, 16  # tokens


def pictures(count: int) -> list[Image.Image]:
    """The sample picture, turned by so many angles."""
    sample = Image.open(SAMPLE_IMAGE).convert("RGB")
    return [sample.rotate(360 * n / count) for n in range(count)]


def plain_answers(explainer: Explainer, shown: Sequence[Image.Image], size: int) -> None:
    """Each batch through the processor and generate()."""
    text = prompting.render(explainer.processor, SAMPLE_PROMPT, [shown[0]]).text
    for start in range(0, len(shown), size):
        some = list(shown[start : start + size])
        inputs = explainer.processor(
            images=some, text=[text] * len(some), return_tensors="pt", add_special_tokens=False
        )
        explainer.model.generate(**inputs, max_new_tokens=128)


def embedded(options: Options) -> Group:
    """A loop of explain() and plain generation, over the batch."""
    count = 4 if options.quick else PICTURES
    explainer, shown = Explainer.from_pretrained(), pictures(count)
    asked = [(picture, SAMPLE_PROMPT) for picture in shown]
    jobs = [
        Job("batch", f"explain_batch, {BATCH} at once", lambda: explainer.explain_batch(asked, BATCH)),
        Job("loop", "explain(), one after the other", lambda: [explainer.explain(*each) for each in asked]),
        Job("plain", f"processor and generate(), {BATCH} at once", partial(plain_answers, explainer, shown, BATCH)),
    ]
    parameters = {"kind": "batch", "model": "embedded", "pictures": count, "batch": BATCH}
    return timed("written answers, embedded", parameters, jobs, rounds=options.rounds_of(9), floor="batch")


def subjects(tokens: int, count: int = SIZE, layers: int = 4) -> list[Subject]:
    """So many pictures of noise, each with an answer."""
    one = subject(build("llava-512", layers=layers), tokens)
    generator = torch.Generator().manual_seed(2)
    noise = [torch.randn(one.inputs["pixel_values"].shape, generator=generator) for _ in range(count)]
    return [replace(one, inputs={**one.inputs, "pixel_values": pixels}) for pixels in noise]


def together(explainer: Explainer, several: Sequence[Subject], given: bool, **length: Any) -> list[Any]:
    return explainer.explain_batch_inputs(
        [(each.inputs, each.targets if given else None) for each in several], **length
    )


def _length(tokens: int) -> dict[str, Any]:
    return {"max_new_tokens": tokens, "do_sample": False}


def written(options: Options) -> Group:
    """The same of the LLaVA: answers of a fixed length."""
    tokens = 2 if options.quick else WRITTEN
    several = subjects(tokens, 2 if options.quick else SIZE)
    model, length = several[0].model, _length(tokens)
    explainer = Explainer(model)
    inputs = joined([each.inputs for each in several], [0] * len(several))
    jobs = [
        Job("batch", f"{len(several)} at once", lambda: together(explainer, several, False, **length)),
        Job("loop", "one after the other", lambda: [explainer.explain_inputs(x.inputs, **length) for x in several]),
        Job("plain", f"generate(), {len(several)} at once", lambda: model.generate(**inputs, **length)),
    ]
    parameters = {"kind": "batch", "model": "llava-512", "pictures": len(several), "tokens": tokens}
    return timed("written answers, llava-512", parameters, jobs, rounds=options.rounds_of(9), floor="batch")


def given(options: Options) -> Group:
    """Given answers over the plain forwards of prompt and answer."""
    several = subjects(GIVEN, 2 if options.quick else SIZE)
    explainer = Explainer(several[0].model)
    jobs = [
        Job("plain", "one forward each of prompt and answer", lambda: [each.forward() for each in several]),
        Job("batch", f"{len(several)} at once", lambda: together(explainer, several, True)),
        Job("loop", "one after the other", lambda: [explainer.explain_inputs(x.inputs, x.targets) for x in several]),
    ]
    parameters = {"kind": "batch", "model": "llava-512", "pictures": len(several), "tokens": GIVEN}
    rounds = options.rounds_of(9)
    return timed("given answers, llava-512", parameters, jobs, rounds=rounds, floor="plain", warm_ups=2)


def gates(options: Options) -> list[Gate]:
    """A batch gives what each request gives alone."""
    several = subjects(5, 3, layers=2)
    explainer = Explainer(several[0].model)
    ways: dict[str, tuple[bool, Callable[[Subject], Explanation]]] = {
        "given": (True, lambda each: explainer.explain_inputs(each.inputs, each.targets)),
        "written": (False, lambda each: explainer.explain_inputs(each.inputs, **_length(5))),
    }
    found = []
    for name, (is_given, alone) in ways.items():
        batch = together(explainer, several, is_given, **({} if is_given else _length(5)))
        pairs = zip(batch, map(alone, several), strict=True)
        found += [agreement(f"{name} in a batch = alone", vars(one), other, BOUND) for one, other in pairs]
    return found


def single(options: Options) -> Iterator[Group]:
    """One request at a time."""
    rounds, tokens = options.rounds_of(21), long_answer.tokens_of(options)
    yield from (given_answer(4, count, rounds) for count in options.sizes(GIVEN_ALONE))
    yield second_question(subject(build("llava-512", layers=4), GIVEN), rounds)
    with TemporaryDirectory() as folder:
        yield from long_answer.beside_generate(tokens, Path(folder, "answer"))


def groups(options: Options) -> Iterator[Group]:
    yield embedded(options)
    yield written(options)
    yield given(options)
    yield from single(options)


BENCHMARK = Benchmark("batch", "what many requests cost at once", gates, groups)

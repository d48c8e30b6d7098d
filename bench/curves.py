"""What perturbation curves cost: 10 steps, the most and the least important first, of the embedded model's answer.

Side by side, 19 pictures each, blurred where they are removed:
- `loop`: hide, one picture and the prompt through the processor, one forward with all logits, log-softmax.
- `curves`: `dexar_fast.evaluation.curves.perturbation`, reading of the prompt and the ranking of pixels included.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from bench.gates import Gate
from bench.groups import Benchmark, Group, timed
from bench.options import Options
from bench.timing import Job
from dexar_fast import Explainer, Explanation
from dexar_fast.cli.explain import SAMPLE_IMAGE, SAMPLE_PROMPT
from dexar_fast.evaluation.curves import Perturbation, perturbation
from dexar_fast.methods.cut.hiding import cover
from dexar_fast.metrics.hiding.ordering import counts, first, order
from dexar_fast.metrics.hiding.perturbation import FRACTIONS, normalised_perplexity

FILL = "blur"


def hidden(e: Explanation) -> Iterator[Image.Image]:
    """The picture after each step, the most important first, then the least."""
    picture, heat = np.asarray(e.images[0]), e.heatmap(resolution="image")
    covered, ranked = cover(picture, FILL), order(heat.ravel())
    steps = counts(len(ranked), len(FRACTIONS))[:-1]
    for places in [first(ranked, count) for count in steps] + [first(ranked[::-1], count) for count in steps[1:]]:
        yield Image.fromarray(np.where(places.reshape(heat.shape)[..., None], covered, picture))


@torch.no_grad()
def loop(explainer: Explainer, e: Explanation) -> NDArray[np.float64]:
    """[19, T] log-probabilities of the answer's tokens, one picture after the other."""
    rows = []
    for picture in hidden(e):
        inputs = explainer.processor(images=picture, text=e.metadata["prompt"], return_tensors="pt")
        ids = torch.cat([inputs["input_ids"], e.token_ids[None]], 1)
        given = {"pixel_values": inputs["pixel_values"], "attention_mask": torch.ones_like(ids)}
        logits = explainer.model(input_ids=ids, **given).logits[0, inputs["input_ids"].shape[1] - 1 : -1]
        rows.append(logits.log_softmax(-1).gather(1, e.token_ids[:, None])[:, 0])
    return torch.stack(rows).double().numpy()


def _subject() -> tuple[Explainer, Explanation]:
    explainer = Explainer.from_pretrained()
    return explainer, explainer.explain(SAMPLE_IMAGE, SAMPLE_PROMPT)


def gates(options: Options) -> list[Gate]:
    """The curves are those of the loop."""
    explainer, e = _subject()
    found: Perturbation = perturbation(explainer, e, fill=FILL)
    rows, tenths = loop(explainer, e), len(FRACTIONS)
    expected = normalised_perplexity(rows[:tenths]), normalised_perplexity(np.concatenate([rows[:1], rows[tenths:]]))
    error = max(
        np.abs(np.divide(*pair) - 1).max() for pair in zip((found.positive, found.negative), expected, strict=True)
    )
    return [Gate("curves = loop", float(error), 1e-3)]


def groups(options: Options) -> Iterator[Group]:
    explainer, e = _subject()
    jobs = [
        Job("curves", "perturbation(), 19 pictures in batches", lambda: perturbation(explainer, e, fill=FILL)),
        Job("loop", "one picture a forward through the processor", lambda: loop(explainer, e)),
    ]
    parameters = {"kind": "curves", "pictures": 2 * len(FRACTIONS) - 1, "tokens": len(e)}
    yield timed("perturbation curves, embedded", parameters, jobs, rounds=options.rounds_of(9), floor="curves")


BENCHMARK = Benchmark("curves", "what perturbation curves cost over one picture a forward", gates, groups)

"""What EAGLE's masked forwards and searches cost.

Side by side, each picture with random regions of an 8 x 8 grid hidden:
- `loop`: what the authors' code does: hide, one picture through the processor, one forward with all logits, softmax.
- `masked`: dexar_fast's masked forwards, hiding and processor included.

On the embedded model with its sample picture, and on a LLaVA of random weights (text width 512, 4 layers, 24 x 24
visual tokens, 32,000 ids) with a picture of noise. And a whole search, ours at the authors' quality against theirs
(6, 4, 15).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from bench.gates import Gate, difference
from bench.groups import Benchmark, Group, timed
from bench.options import Options
from bench.subjects import FIRST_TARGET, LAST_TARGET
from bench.timing import Job
from dexar_fast import Explainer
from dexar_fast.cli.explain import SAMPLE_IMAGE, SAMPLE_PROMPT
from dexar_fast.generation.asked import Asked
from dexar_fast.generation.runner import Runner
from dexar_fast.methods.cut.divided import Divided, divided
from dexar_fast.methods.cut.scoring import scorer
from dexar_fast.methods.eagle.search import LEAST, search
from dexar_fast.profile.shapes import build
from dexar_fast.prompt import request
from dexar_fast.prompt.remade.pixels import Pixels

VOCABULARY = 32_000
REGIONS = 64
THEIRS: dict[str, Any] = {"variant": "efficient", "scope": 6, "pending": 4, "refresh": 15}
OURS = {"embedded": 400, "random": 225}  # forwards with which ours is no worse than theirs
PICTURES = {"embedded": 256, "random": 32}
SEARCHED = {"embedded": 64, "random": 36}  # regions


@dataclass(frozen=True)
class Masked:
    """A request with its answer, and its pictures cut into regions."""

    asked: Asked
    cut: Divided

    def masks(self, count: int) -> Tensor:
        """[count, N] bool, random."""
        generator = torch.Generator().manual_seed(0)
        return torch.rand(count, self.cut.count, generator=generator) < 0.5

    def scorer(self) -> Callable[[Tensor], Tensor]:
        """Masked forwards."""
        asked = self.asked
        return scorer(asked, self.cut, Pixels(asked.processor, asked.inputs, asked.images))

    @torch.no_grad()
    def loop(self, masks: Tensor) -> Tensor:
        """[B, T], one picture at a time."""
        asked, answer = self.asked, self.asked.targets
        prompt = asked.inputs["input_ids"].shape[1]
        ids = torch.cat([asked.inputs["input_ids"], answer[None]], 1)
        rows = []
        for mask in masks:
            pixels = asked.processor.image_processor(self.cut.shown(mask), return_tensors="pt")
            logits = asked.model(input_ids=ids, attention_mask=torch.ones_like(ids), **pixels).logits[
                0, prompt - 1 : -1
            ]
            rows.append(logits.softmax(-1).gather(-1, answer[:, None])[:, 0].float())
        return torch.stack(rows)


@contextmanager
def embedded(regions: int = REGIONS) -> Iterator[Masked]:
    """The embedded model's own answer about the sample picture."""
    explainer = Explainer.from_pretrained()
    image = Image.open(SAMPLE_IMAGE).convert("RGB")
    asked = request.read(explainer.processor, [image], SAMPLE_PROMPT, None, with_content=False)
    with Runner(explainer, asked, {}, None).answered() as answered:
        yield Masked(answered, divided([image], answered.grids, regions, "grid", None, "black"))


@contextmanager
def random(regions: int = REGIONS, seed: int = 0) -> Iterator[Masked]:
    """A given answer of 16 tokens about a picture of noise."""
    built = build("llava-512", vocabulary=VOCABULARY)
    size = built.inputs_for()["pixel_values"].shape[-1]
    crop = {"height": size, "width": size}
    processor = SimpleNamespace(image_processor=CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size=crop))
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8))
    inputs = dict(built.inputs_for()) | dict(processor.image_processor([image], return_tensors="pt"))
    answer = torch.randint(FIRST_TARGET, LAST_TARGET, (16,), generator=torch.Generator().manual_seed(1))
    asked = request.given(inputs, [image], answer)
    with Runner(Explainer(built.model, processor), asked, {}, None).answered() as answered:
        yield Masked(answered, divided([image], answered.grids, regions, "grid", None, "black"))


SUBJECTS = {"embedded": embedded, "random": random}


def gates(options: Options) -> list[Gate]:
    """Masked forwards give the probabilities of the loop."""
    found = []
    for name, make in SUBJECTS.items():
        with make() as subject:
            masks = subject.masks(3 if options.quick else PICTURES[name])
            error = difference(subject.scorer()(masks)[-3:], subject.loop(masks[-3:]))
            found.append(Gate(f"masked = loop, {name}", error, 1e-4))
    return found


def forwards(name: str, options: Options) -> Group:
    """The loop over the masked forwards, for as many pictures."""
    count = 2 if options.quick else PICTURES[name]
    with SUBJECTS[name]() as subject:
        masks, ours = subject.masks(count), subject.scorer()
        jobs = [
            Job("masked", f"masked forwards, {count} pictures", partial(ours, masks)),
            Job("loop", f"one picture at a time, {count} pictures", partial(subject.loop, masks)),
        ]
        parameters = {"kind": "masked", "model": name, "pictures": count}
        return timed(f"masked forwards, {name}", parameters, jobs, rounds=options.rounds_of(9), floor="masked")


def searches(name: str, options: Options) -> Group:
    """The authors' efficient search over the loop, against ours over masked forwards."""
    with SUBJECTS[name](4 if options.quick else SEARCHED[name]) as subject:
        regions = subject.cut.count
        budget = max(LEAST * regions, 0 if options.quick else OURS[name])
        jobs = [
            Job(
                "ours",
                f"guided search, {budget} forwards",
                lambda: search(subject.scorer(), regions, variant="guided", budget=budget),
            ),
            Job("theirs", f"search {THEIRS}, one picture at a time", lambda: search(subject.loop, regions, **THEIRS)),
        ]
        notes = {job.name: job.run().forwards for job in jobs}
        parameters = {"kind": "search", "model": name, "regions": regions}
        rounds = options.rounds_of(3)
        return timed(f"search, {name}", parameters, jobs, rounds=rounds, floor="ours", warm_ups=0, notes=notes)


def groups(options: Options) -> Iterator[Group]:
    for name in SUBJECTS:
        yield forwards(name, options)
    for name in SUBJECTS:
        yield searches(name, options)


BENCHMARK = Benchmark("masked", "what masked forwards and searches by them cost", gates, groups)

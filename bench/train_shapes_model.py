"""Train the embedded model: python bench/train_shapes_model.py --out dexar_fast/assets/shapes-llava

Three stages. First the vision tower alone learns what is on every patch (colour, shape, place in the
left-to-right order) through linear heads that are thrown away: its features stay local. Then it is frozen,
its features are cached, and projector and language model learn many questions per image at once
(shapes_packing.py). Last, all of it learns them together at a lower rate.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from shapes_model import DESCRIBE_PROMPTS, build_model, build_processor, build_tokenizer
from shapes_packing import NO_LABEL, Packed, Packer, Segment, packed_states
from shapes_pool import BACKGROUND, IGNORE, LABEL_CLASSES, PATCHES, Pool, build_pool
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from dexar_fast.data.shapes import (
    COLORS,
    QUESTION_KINDS,
    SHAPES,
    Placed,
    Question,
    absent_questions,
    color_questions,
    describe,
    draw_scene,
    present_questions,
    sample_questions,
    shape_questions,
)

# Evaluation draws its scenes from seed 10_000_000 up.
HELD_OUT_SEEDS = range(9_000_000, 9_000_400)
SCENES = 24_000
# (steps, learning rate) of each cosine; the heads start afresh in each. The last trains the tower as well.
VISION_CYCLES = ((1_000, 1.5e-3), (700, 1e-3))
LANGUAGE_CYCLES = ((1_200, 2e-3, False), (900, 7e-4, True))
UNSPACED_SHARE = 0.1
VERDICT_WEIGHT = 4.0
# A red triangle, a yellow circle and a blue square, never seen in training: asked about in `make demo`.
SAMPLE_SEED = 20_002_312


def main() -> None:
    options = _options()
    started = time.perf_counter()
    torch.manual_seed(options.seed)
    tokenizer = build_tokenizer()
    model, processor = build_model(tokenizer), build_processor(tokenizer)
    pool = build_pool(range(SCENES), os.cpu_count() or 1)
    held_out = build_pool(HELD_OUT_SEEDS, os.cpu_count() or 1)
    print(f"{SCENES} scenes after {time.perf_counter() - started:.0f} s", flush=True)
    for steps, rate in VISION_CYCLES:
        train_vision(model, processor, pool, held_out, steps=steps, batch=64, rate=rate)
    print(f"vision tower after {time.perf_counter() - started:.0f} s", flush=True)
    for steps, rate, joint in LANGUAGE_CYCLES:
        train_language(model, processor, pool, held_out, steps=steps, batch=32, rate=rate, joint=joint)
    store(model, processor, options.out)
    draw_scene(SAMPLE_SEED).image.save(options.out.parent / "sample.png")
    print(f"stored in {options.out} after {time.perf_counter() - started:.0f} s")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the model; replaced when it exists")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def optimizer(
    parameters: Sequence[nn.Parameter], rate: float, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW with 100 steps of warm-up and a cosine to zero."""
    adam = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    warmup = 100
    schedule = torch.optim.lr_scheduler.LambdaLR(
        adam, lambda step: min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / steps)))
    )
    return adam, schedule


def batches(count: int, batch: int, steps: int) -> Iterator[NDArray[np.int64]]:
    """`steps` batches of indices, epoch after epoch in a new order."""
    rng = np.random.default_rng(0)
    order = np.concatenate([rng.permutation(count) for _ in range(math.ceil(steps * batch / count))])
    for step in range(steps):
        yield order[step * batch : (step + 1) * batch]


def pixel_values(processor: LlavaProcessor, pixels: NDArray[np.uint8]) -> Tensor:
    """uint8 [n, s, s, 3] to what the processor would make of it, float32 [n, 3, s, s]."""
    mean, std = (torch.tensor(v) for v in (processor.image_processor.image_mean, processor.image_processor.image_std))
    return ((torch.from_numpy(pixels).float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()


def visual_features(model: LlavaForConditionalGeneration, pixels: Tensor) -> Tensor:
    """What LLaVA hands to its projector: the last hidden states without the class token [n, 144, d]."""
    return torch.as_tensor(model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1][:, 1:])


def train_vision(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    pool: Pool,
    held_out: Pool,
    *,
    steps: int,
    batch: int,
    rate: float,
) -> None:
    width = model.config.vision_config.hidden_size
    heads = nn.ModuleDict({name: nn.Linear(width, classes) for name, classes in LABEL_CLASSES.items()})
    parameters = [*model.model.vision_tower.parameters(), *heads.parameters()]
    adam, schedule = optimizer(parameters, rate, steps)
    for step, chosen in enumerate(batches(len(pool.layouts), batch, steps)):
        features = visual_features(model, pixel_values(processor, pool.pixels[chosen]))
        loss = torch.stack(
            [patch_loss(head(features), pool.labels[name][chosen]) for name, head in heads.items()]
        ).sum()
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        adam.step()
        schedule.step()
        if step % 100 == 99:
            scores = patch_accuracy(model, processor, heads, held_out)
            print(f"vision {step + 1} loss {loss.item():.4f} {scores}", flush=True)


def patch_loss(logits: Tensor, labels: NDArray[np.int64]) -> Tensor:
    """Cross-entropy over patches; background, four patches in five, counts a fifth."""
    weight = torch.ones(logits.shape[-1])
    weight[BACKGROUND] = 0.2
    return functional.cross_entropy(
        logits.flatten(0, 1), torch.from_numpy(labels).flatten(), weight, ignore_index=IGNORE
    )


@torch.no_grad()
def patch_accuracy(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, heads: nn.ModuleDict, pool: Pool
) -> dict[str, float]:
    """Share of object patches that each head labels right."""
    features = visual_features(model, pixel_values(processor, pool.pixels))
    scores = {}
    for name, head in heads.items():
        labels = torch.from_numpy(pool.labels[name])
        right = (head(features).argmax(-1) == labels)[labels > 0]
        scores[name] = round(right.float().mean().item(), 4)
    return scores


@torch.no_grad()
def cache_features(model: LlavaForConditionalGeneration, processor: LlavaProcessor, pool: Pool) -> Tensor:
    """Float16 [n, 144, d]."""
    chunks = [pool.pixels[i : i + 256] for i in range(0, len(pool.pixels), 256)]
    return torch.cat([visual_features(model, pixel_values(processor, chunk)).half() for chunk in chunks])


def train_language(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    pool: Pool,
    held_out: Pool,
    *,
    steps: int,
    batch: int,
    rate: float,
    joint: bool,
) -> None:
    """Projector and language model on cached features, or all of the model where `joint`."""
    cached = torch.empty(0) if joint else cache_features(model, processor, pool)
    packer = Packer(processor.tokenizer, PATCHES**2)
    parameters = [p for name, p in model.named_parameters() if joint or "vision_tower" not in name]
    adam, schedule = optimizer(parameters, rate, steps)
    rng = np.random.default_rng(2 if joint else 1)
    started = time.perf_counter()
    for step, chosen in enumerate(batches(len(pool.layouts), batch, steps)):
        rows = [training_segments(packer, pool.layouts[i], rng) for i in chosen]
        if joint:
            features = visual_features(model, pixel_values(processor, pool.pixels[chosen]))
        else:
            features = cached[torch.from_numpy(chosen)].float()
        loss = packed_loss(model, packer, features, packer.pack(rows))
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        adam.step()
        schedule.step()
        if step % 100 == 99:
            seconds = (time.perf_counter() - started) / (step + 1)
            scores = asked_accuracy(model, packer, cache_features(model, processor, held_out), held_out.layouts)
            print(f"language {step + 1} loss {loss.item():.4f} {seconds:.2f} s a step {scores}", flush=True)


def training_segments(packer: Packer, objects: tuple[Placed, ...], rng: np.random.Generator) -> list[Segment]:
    known = partners(objects)
    return [
        packer.segment(question, space=bool(rng.random() >= UNSPACED_SHARE), partners=known)
        for question in training_questions(objects, rng)
    ]


def partners(objects: tuple[Placed, ...]) -> dict[str, str]:
    """Per shape its colour in the scene and per colour its shape, 'No' for what is not there. Words that
    occur twice have none."""
    pairs = [(item.shape, item.color) for item in objects] + [(item.color, item.shape) for item in objects]
    found = {word: [b for a, b in pairs if a == word] for word in (*SHAPES, *COLORS)}
    return {word: (others or ["No"])[0] for word, others in found.items() if len(others) < 2}


def training_questions(objects: tuple[Placed, ...], rng: np.random.Generator) -> list[Question]:
    """Up to nine questions about one scene, with the lookups and the hard negatives that are slow to
    learn."""
    pools = [
        (color_questions(objects), 1),
        (shape_questions(objects), 1),
        (present_questions(objects), 3),
        (absent_questions(objects, "hard"), 2),
        (absent_questions(objects, "half"), 1),
        (absent_questions(objects, "easy"), int(rng.random() < 0.3)),
    ]
    picked = [pool[i] for pool, most in pools for i in rng.choice(len(pool), size=min(most, len(pool)), replace=False)]
    wording = DESCRIBE_PROMPTS[max(0, int(rng.integers(-3, len(DESCRIBE_PROMPTS))))]
    whole = describe(objects)
    return [Question(whole.kind, wording, whole.words, whole.asked), *picked]


def packed_loss(model: LlavaForConditionalGeneration, packer: Packer, features: Tensor, packed: Packed) -> Tensor:
    """Cross-entropy over all labels, a yes or no counting `VERDICT_WEIGHT` times as much as another word."""
    learnt = packed.labels != NO_LABEL
    states = packed_states(model, packer, features, packed)
    weight = torch.ones(model.config.text_config.vocab_size)
    weight[packer.verdicts] = VERDICT_WEIGHT
    return functional.cross_entropy(model.lm_head(states[learnt]), packed.labels[learnt], weight)


@torch.no_grad()
def asked_accuracy(
    model: LlavaForConditionalGeneration,
    packer: Packer,
    features: Tensor,
    layouts: Sequence[tuple[Placed, ...]],
) -> dict[str, float]:
    """Per question kind, the share of asked words that come first given the right words before them."""
    rng = np.random.default_rng(2)
    questions = [sample_questions(objects, rng) for objects in layouts]
    right: dict[str, list[bool]] = {kind: [] for kind in QUESTION_KINDS}
    for start in range(0, len(layouts), 50):
        chosen = questions[start : start + 50]
        packed = packer.pack([[packer.segment(question) for question in row] for row in chosen])
        best = model.lm_head(packed_states(model, packer, features[start : start + 50].float(), packed)).argmax(-1)
        hits = (best == packed.labels)[packed.asked.bool()].tolist()
        kinds = [question.kind for row in chosen for question in row for _ in question.asked]
        for kind, hit in zip(kinds, hits, strict=True):
            right[kind].append(hit)
    return {kind: round(sum(hits) / len(hits), 3) for kind, hits in right.items()}


def store(model: LlavaForConditionalGeneration, processor: LlavaProcessor, folder: Path) -> None:
    """Write the model in bfloat16 with its processor beside the target, then swap the folders."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        fresh = Path(scratch) / folder.name
        model.to(torch.bfloat16).save_pretrained(fresh)
        processor.save_pretrained(fresh)
        for file in fresh.iterdir():
            file.chmod(0o644)
        if folder.exists():
            shutil.move(folder, Path(scratch) / "replaced")
        os.replace(fresh, folder)


if __name__ == "__main__":
    main()

"""Judge the embedded model: python bench/evaluate_shapes_model.py [--scenes 2000] [--maps 200]

First free greedy generation on scenes it never saw, through the stored processor, then DEX-AR's maps of the
right answers against the masks, beside chance (shapes_maps.py). Writes nothing.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from shapes_maps import print_maps
from transformers import AutoProcessor, LlavaForConditionalGeneration, ProcessorMixin

from dexar_fast.data.shapes import QUESTION_KINDS, Question, draw_scene, sample_questions

STORED = Path(__file__).parents[1] / "dexar_fast" / "assets" / "shapes-llava"
# Training draws its scenes from seed 0 up and watches those from 9_000_000.
FIRST_SEED = 10_000_000
CHUNK = 40
Tally = dict[str, list[bool]]


def main() -> None:
    options = _options()
    model = LlavaForConditionalGeneration.from_pretrained(options.model, dtype=getattr(torch, options.dtype)).eval()
    processor = AutoProcessor.from_pretrained(options.model)
    if options.scenes:
        print_answers(model, processor, options.scenes, FIRST_SEED)
    if options.maps:
        print_maps(options.model, range(FIRST_SEED, FIRST_SEED + options.maps))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=STORED)
    parser.add_argument("--scenes", type=int, default=2000, help="scenes to answer questions about; 0 for none")
    parser.add_argument("--maps", type=int, default=200, help="scenes to explain; 0 for none")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    return parser.parse_args()


def print_answers(model: LlavaForConditionalGeneration, processor: ProcessorMixin, scenes: int, first: int) -> None:
    """A word is right when the generated answer has it at its place. 'Asked' words are those the question
    asks for (for is_there: yes or no); the others of a colour or shape are copied from the question."""
    tally: Tally = defaultdict(list)
    for start in range(first, first + scenes, CHUNK):
        for question, text in answers(model, processor, range(start, min(start + CHUNK, first + scenes))):
            score(question, text, tally)
    print(f"{scenes} unseen scenes from seed {first}, greedy, {model.dtype}")
    print(f"{'':34}{'right':>9}{'95 %':>9}{'words':>8}")
    for name, hits in tally.items():
        share = sum(hits) / len(hits)
        print(f"{name:34}{share:9.2%}{1.96 * (share * (1 - share) / len(hits)) ** 0.5:9.2%}{len(hits):8}")


def answers(
    model: LlavaForConditionalGeneration, processor: ProcessorMixin, seeds: Sequence[int]
) -> Iterator[tuple[Question, str]]:
    """Every sampled question of the scenes with what the model says, one batch per kind of question."""
    asked: dict[str, list[tuple[Image.Image, Question]]] = {kind: [] for kind in QUESTION_KINDS}
    for seed in seeds:
        scene = draw_scene(seed)
        for question in sample_questions(scene.objects, np.random.default_rng([seed, 2])):
            asked[question.kind].append((scene.image, question))
    for pairs in asked.values():
        texts = generate(model, processor, [image for image, _ in pairs], [question.text for _, question in pairs])
        yield from zip([question for _, question in pairs], texts, strict=True)


@torch.inference_mode()
def generate(
    model: LlavaForConditionalGeneration,
    processor: ProcessorMixin,
    images: Sequence[Image.Image],
    prompts: Sequence[str],
) -> list[str]:
    """Greedy answers to one prompt per image."""
    chats = [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}] for prompt in prompts]
    texts = [processor.apply_chat_template(chat, add_generation_prompt=True) for chat in chats]
    inputs = processor(images=list(images), text=texts, padding=True, return_tensors="pt").to(model.dtype)
    output = model.generate(**inputs, do_sample=False)
    return list(processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


def score(question: Question, text: str, tally: Tally) -> None:
    """Compare word by word, punctuation aside, and file each hit under the rows it counts for."""
    said = re.findall(r"\w+", text)
    numbered = [(i, word) for i, word in enumerate(question.words) if word.text.strip().isalpha()]
    for place, (index, word) in enumerate(numbered):
        hit = said[place : place + 1] == [word.text.strip()]
        if index in question.asked:
            tally[f"{question.kind}: asked words"].append(hit)
        if word.kind != "filler":
            tally["colour and shape words"].append(hit)
            tally[f"  of them {word.kind}"].append(hit)
        if word.kind != "filler" and index in question.asked:
            tally["colour and shape words, asked only"].append(hit)
    tally["whole answers"].append(text.strip() == question.answer)


if __name__ == "__main__":
    main()

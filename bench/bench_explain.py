"""What an explanation costs over one plain forward of the same tokens, and over generation alone.

    python bench/bench_explain.py            # about 5 minutes on 2 quiet cores; prints one JSON object at the end

Jobs are interleaved and the ratio is the median over rounds of (explain / floor) within a round. The floor runs the
same P + T tokens in one no-grad SDPA forward and computes the last logits only, as the explanation does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers
from transformers import (
    CLIPVisionConfig,
    DynamicCache,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from dexar_fast import Explainer

TEXT_TOKENS = 44
IMAGE_TOKEN = 999


def random_llava(layers: int, grid: int = 24) -> LlavaForConditionalGeneration:
    """LLaVA with random weights: text width 512, a small tower, grid x grid visual tokens."""
    torch.manual_seed(0)
    text = LlamaConfig(
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        vocab_size=1000,
        max_position_embeddings=16384,
        eos_token_id=None,
    )
    vision = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=grid * 14,
        patch_size=14,
    )
    config = LlavaConfig(
        text_config=text, vision_config=vision, image_token_index=IMAGE_TOKEN, image_seq_length=grid**2
    )
    model = LlavaForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = None
    return model


def prompt(grid: int = 24) -> dict[str, torch.Tensor]:
    """A prompt of 44 text tokens around one image."""
    half = TEXT_TOKENS // 2
    ids = torch.cat([torch.arange(1, half + 1), torch.full((grid**2,), IMAGE_TOKEN), torch.arange(30, 30 + half)])
    pixels = torch.randn(1, 3, grid * 14, grid * 14, generator=torch.Generator().manual_seed(0))
    return {
        "input_ids": ids[None],
        "attention_mask": torch.ones(1, len(ids), dtype=torch.long),
        "pixel_values": pixels,
    }


def interleaved(rounds: int, **jobs: Callable[[], Any]) -> dict[str, list[float]]:
    """Seconds of each job in every round, after one warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for round_ in range(rounds + 1):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            if round_:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def report(name: str, seconds: dict[str, list[float]], job: str, floor: str) -> dict[str, Any]:
    """Minimum and median of both jobs in ms and the median ratio with its 20/80 percentiles, printed and returned."""
    ratios = sorted(a / b for a, b in zip(seconds[job], seconds[floor], strict=True))
    fifths = statistics.quantiles(ratios, n=5)
    row: dict[str, Any] = {
        "name": name,
        "ratio": statistics.median(ratios),
        "p20": fifths[0],
        "p80": fifths[3],
    }
    for key in (job, floor):
        row[f"{key}_ms"] = {"min": 1e3 * min(seconds[key]), "median": 1e3 * statistics.median(seconds[key])}
    print(
        f"{name:32} {row['ratio']:.3f}  [{row['p20']:.3f}, {row['p80']:.3f}]",
        row[f"{job}_ms"],
        row[f"{floor}_ms"],
    )
    return row


def given_answer(layers: int, tokens: int, rounds: int) -> dict[str, Any]:
    """Explain a given answer, over one plain forward of the same P + T tokens."""
    model, inputs = random_llava(layers), prompt()
    targets = torch.randint(100, 900, (tokens,), generator=torch.Generator().manual_seed(1))
    ids = torch.cat([inputs["input_ids"], targets[None]], 1)
    whole = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    explainer = Explainer(model)

    @torch.no_grad()
    def forward() -> None:
        model(**whole, use_cache=True, past_key_values=DynamicCache(), logits_to_keep=1)

    seconds = interleaved(rounds, forward=forward, explain=lambda: explainer.explain_inputs(inputs, target_ids=targets))
    return report(f"given answer, L={layers}, T={tokens}", seconds, "explain", "forward")


def generated_answer(layers: int, tokens: int, rounds: int) -> dict[str, Any]:
    """Generate and explain, over generate alone with the same attention and cache."""
    model, inputs = random_llava(layers), prompt()
    explainer = Explainer(model)

    def generate() -> None:
        model.generate(**inputs, past_key_values=DynamicCache(), max_new_tokens=tokens, do_sample=False)

    def explain() -> None:
        explainer.explain_inputs(inputs, max_new_tokens=tokens, do_sample=False)

    seconds = interleaved(rounds, generate=generate, explain=explain)
    return report(f"generated answer, L={layers}, T={tokens}", seconds, "explain", "generate")


def machine() -> dict[str, Any]:
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "load_at_start": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--layers", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--tokens", type=int, nargs="+", default=[16, 64, 256])
    arguments = parser.parse_args()
    facts = machine()
    if facts["load_at_start"] > 0.3:
        print(f"the load is {facts['load_at_start']:.2f}: these figures will not hold")
    rows = [given_answer(n, t, arguments.rounds) for n in arguments.layers for t in arguments.tokens]
    rows += [generated_answer(n, t, max(3, arguments.rounds // 5)) for n in arguments.layers for t in (64, 256)]
    print(json.dumps({"machine": facts, "rows": rows}))


if __name__ == "__main__":
    main()

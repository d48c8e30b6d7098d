"""A long answer, explained into a folder while it is written: time per token, memory, and what a killed run leaves.

    python bench/long_answer.py               # some minutes on 2 cores; prints a table and one JSON object

A LLaVA with random weights (text width 128, 2 layers, 12 x 12 visual tokens) writes 8,192 tokens over a KV pool, in
pieces of 64. One run is killed with SIGKILL in the middle, and what it left is read; another goes to the end. Then the
same answer is given to explain(), and the two explanations are compared. Each run is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from dexar_fast import Explainer, Explanation
from dexar_fast.pool import KVPool

GRID, IMAGE, PROMPT = 12, 999, 2 * 22 + 12 * 12
LAYERS, WIDTH = 2, 128
MIB = 2**20
REPORTS = 8  # lines of the table


def random_llava() -> LlavaForConditionalGeneration:
    torch.manual_seed(0)
    text = LlamaConfig(
        hidden_size=WIDTH,
        intermediate_size=344,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        vocab_size=1000,
        max_position_embeddings=2**15,
        eos_token_id=None,
    )
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=GRID * 8,
        patch_size=8,
    )
    config = LlavaConfig(text_config=text, vision_config=vision, image_token_index=IMAGE, image_seq_length=GRID**2)
    model = LlavaForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = None
    return model


def prompt() -> dict[str, torch.Tensor]:
    ids = torch.cat([torch.arange(1, 23), torch.full((GRID**2,), IMAGE), torch.arange(30, 52)])
    pixels = torch.randn(1, 3, GRID * 8, GRID * 8, generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids[None], "attention_mask": torch.ones_like(ids)[None], "pixel_values": pixels}


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def stream(tokens: int, chunk: int, out: str) -> None:
    """The process that writes: prints its tokens, seconds and resident bytes after every piece."""
    explainer = Explainer(random_llava(), pool=KVPool(PROMPT + tokens + 16))
    torch.manual_seed(1)
    begin = time.perf_counter()
    for piece in explainer.stream_inputs(
        prompt(), chunk_size=chunk, out=out, max_new_tokens=tokens, do_sample=True, top_k=0, suppress_tokens=[IMAGE]
    ):
        print(piece.first + len(piece), time.perf_counter() - begin, resident(), flush=True)


def given(folder: str, out: str) -> None:
    """The process that explains the answer of a folder: prints seconds, resident bytes, and the largest differences."""
    answer = Explanation.load(folder)
    begin = time.perf_counter()
    found = Explainer(random_llava()).explain_inputs(prompt(), target_ids=answer.token_ids, out=out)
    print(time.perf_counter() - begin, resident(), *(difference(answer, found, name) for name in COMPARED))


COMPARED = {"token_maps": "unfiltered_token_maps", "unfiltered_token_maps": "unfiltered_token_maps"}
COMPARED |= {"visual_scores": "visual_scores", "text_scores": "text_scores", "token_weights": "text_scores"}


def difference(one: Explanation, other: Explanation, name: str) -> float:
    """Relative to the largest number that went into the array."""
    scale = getattr(other, COMPARED[name]).abs().max()
    return float((getattr(one, name) - getattr(other, name)).abs().max() / scale)


def child(*arguments: Any) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def killed(tokens: int, chunk: int, out: Path) -> dict[str, Any]:
    """A run that is killed once half of the answer was handed over, and what it left."""
    with child("stream", tokens, chunk, out) as process:
        assert process.stdout is not None
        handed = next(int(line.split()[0]) for line in process.stdout if int(line.split()[0]) >= tokens // 2)
        process.send_signal(signal.SIGKILL)
    begin = time.perf_counter()
    found = Explanation.load(out)
    seconds = time.perf_counter() - begin
    assert not found.metadata["complete"]
    return {"handed_over": handed, "read_again": len(found), "seconds_to_read": seconds, "ids": found.token_ids}


def whole(tokens: int, chunk: int, out: Path) -> list[tuple[int, float, int]]:
    with child("stream", tokens, chunk, out) as process:
        assert process.stdout is not None
        rows = [line.split() for line in process.stdout]
    return [(int(count), float(seconds), int(held)) for count, seconds, held in rows]


def table(rows: list[tuple[int, float, int]]) -> list[dict[str, float]]:
    """Time per token over each stretch of the answer; memory beyond its beginning and the KV cache since."""
    first = rows[0]
    lines, last = [], (0, 0.0, 0)
    for mark in (rows[-1][0] * i // REPORTS for i in range(1, REPORTS + 1)):
        row = next(row for row in rows if row[0] >= mark)
        cache = 2 * 4 * LAYERS * WIDTH * (row[0] - first[0])
        lines.append(
            {
                "tokens": row[0],
                "ms_per_token": 1e3 * (row[1] - last[1]) / (row[0] - last[0]),
                "resident_mib": row[2] / MIB,
                "kv_cache_mib": cache / MIB,
                "beyond_mib": (row[2] - first[2] - cache) / MIB,
            }
        )
        last = row
    return lines


def main(tokens: int, chunk: int) -> None:
    with TemporaryDirectory() as name:
        left = killed(tokens, chunk, Path(name, "killed"))
        rows = whole(tokens, chunk, Path(name, "whole"))
        finished = Explanation.load(Path(name, "whole"))
        ids = left.pop("ids")
        left["same_tokens_as_the_whole_run"] = bool(torch.equal(ids, finished.token_ids[: len(ids)]))
        on_disk = sum(path.stat().st_size for path in Path(name, "whole").iterdir())
        with child("given", Path(name, "whole"), Path(name, "given")) as process:
            assert process.stdout is not None
            seconds, held, *differences = map(float, process.stdout.read().split())
    lines = table(rows)
    for line in lines:
        print("  ".join(f"{name} {value:,.2f}" for name, value in line.items()))
    print(
        json.dumps(
            {
                "machine": machine(),
                "tokens": len(finished),
                "complete": finished.metadata["complete"],
                "chunk_size": chunk,
                "stream": lines,
                "shards_mib": on_disk / MIB,
                "killed": left,
                "given": {"ms_per_token": 1e3 * seconds / tokens, "resident_mib": held / MIB},
                "difference": dict(zip(COMPARED, differences, strict=True)),
            },
            indent=1,
        )
    )


def machine() -> dict[str, Any]:
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "load_at_end": os.getloadavg()[0],
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["stream"]:
        stream(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    elif sys.argv[1:2] == ["given"]:
        given(sys.argv[2], sys.argv[3])
    else:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("--tokens", type=int, default=8192)
        parser.add_argument("--chunk", type=int, default=64)
        main(**vars(parser.parse_args()))

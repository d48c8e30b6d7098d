"""What explaining a given answer costs with each image-text-to-text type of transformers, over one plain forward.

Models of the real classes with random weights (d = 512, 4 layers, 8 heads, float32, small towers and images). Prompts
have 620 tokens, words behind the image (of encoder-decoders, the encoder's), and answers 64. Where the prompt is an
image alone, the decoder reads 620 (pix2struct), 626 (vision-encoder-decoder) or 144 keys (pp_formulanet) of it. Seconds
are those of the processor: other work on the machine does not count.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch

from bench import machine
from bench.gates import same_arrays
from bench.groups import Benchmark, Group, timed
from bench.options import Options
from bench.timing import Job
from dexar_fast import Explainer

TOKENS = 64
QUICK = ("llava",)
FORMULA, AGAIN, RECORDED = "formula", "run again", "autograd"


def groups(options: Options) -> Iterator[Group]:
    """One for each type that is explained."""
    sys.path.append(str(machine.ROOT / "tests" / "support"))
    import types_cases

    torch.set_num_threads(1)
    for model_type in QUICK if options.quick else sorted(types_cases.known()):
        try:
            yield of_type(model_type, options.rounds_of(5))
        except Exception as error:  # a type that is refused, fails by itself, or cannot be made so large
            print(f"{model_type}: {type(error).__name__}: {error}", file=sys.stderr)


def of_type(model_type: str, rounds: int) -> Group:
    import types_sized

    model, inputs = types_sized.case(model_type)
    words = types_sized.WORDS
    targets = torch.randint(words.start, words.stop, (TOKENS,), generator=torch.Generator().manual_seed(1))
    explainer = Explainer(model)
    for _ in range(2):  # what is found about a model, is found once
        explainer.explain_inputs(inputs, target_ids=targets)
    whole = types_sized.answered(model, inputs, TOKENS)
    jobs = [
        Job("forward", "one plain no-grad forward of prompt and answer", lambda: torch.no_grad()(model)(**whole)),
        Job(
            "explain",
            "Explainer.explain_inputs of the given answer",
            lambda: explainer.explain_inputs(inputs, target_ids=targets),
        ),
    ]
    parameters = {"type": model_type, "tokens": TOKENS}
    notes = {"way": way_of(explainer.decoder)}
    return timed(model_type, parameters, jobs, rounds=rounds, floor="forward", timer=processor, notes=notes)


def way_of(decoder: Any) -> str:
    """How its layers are differentiated, the most frequent way first."""
    ways = Counter(map(_way_of_layer(decoder), range(len(decoder.layers))))
    return ", ".join(way for way, _ in ways.most_common())


def _way_of_layer(decoder: Any) -> Callable[[int], str]:
    def way(index: int) -> str:
        again = AGAIN if decoder.rerun.get(decoder.layers[index]) else RECORDED
        return FORMULA if index in decoder.trusted_tails else again

    return way


def processor(run: Callable[[], Any]) -> float:
    """Seconds of this process's threads."""
    start = time.process_time()
    run()
    return time.process_time() - start


BENCHMARK = Benchmark("types", "an explanation over a plain forward, by type of model", same_arrays, groups)

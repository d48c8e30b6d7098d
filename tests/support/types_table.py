"""Writes dexar_fast/TYPES.md, what comes of every image-text-to-text type of transformers: `make types`.

Each is built small, explained in every way, and compared with an oracle that shares nothing with the engine.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import transformers
import types_cases
from paths import ROOT
from transformers import CONFIG_MAPPING
from types_cases import TYPES, Case, case
from types_places import place

from dexar_fast import Explainer, Explanation, KVPool
from dexar_fast.errors import DexarError, reason

PAGE, RESULTS = ROOT / "dexar_fast" / "TYPES.md", ROOT / "bench" / "results"
TARGETS = torch.tensor([20, 31, 44])
ROUNDING = 1e-9
WAYS = ("given", "given again", "generated", "streamed", "pooled")
EXPLAINED, REFUSED, UNTESTED = "explained", "refused", "untested"
HEAD = """# Every image-text-to-text type of transformers

Written by `make types` with transformers {version}. Each type is a small random model of the real class, in float64. It
explains a given answer of {tokens} tokens, twice (at first the prompt may run by itself), one that it writes, and that
one streamed, and over a KV pool. The figure is the largest difference of any array of the result from an oracle's, over
the array's largest value. The oracle is autograd over one eager forward, and shares nothing with the engine. 1e-9 and
less is rounding. More is that of models which compute a part (or all: inkling2, inkling2_loop) in float32, whatever
their dtype: {narrow}.

Place says how it is known which part of a picture a visual token saw. Own layout: written down for the type, and held
against painted regions in tests; its first prompts with a wide, a tall and a square picture are checked by random
blocks, but for the codes of chameleon, emu3 and apertus1p5. Declared: the inputs name a grid, and what the tokens
answer to random blocks confirms it. Measured: by structured light through the type's real image processor and its
tower, also of keys that a model reads elsewhere than among the prompt's ids. Untested: why no small model could be
measured here; the first prompt with pictures is.

Way: how the layers of a larger model (d = 512, 4 layers, float32) get their gradients: by formula; by autograd, through
the chunk of the answer; or run again at the answer's positions alone, where the prompt has to run with its answer. The
ratio is the time of explaining a given answer of 64 tokens, over one plain forward of the same tokens behind the same
prompt of 620 (`python -m bench types`; {measured}). Of three types the prompt is a
picture alone; the decoder reads 620 (pix2struct), 626 (vision-encoder-decoder) or 144 keys (pp_formulanet) of it.

{counts}

| type | class | status | {ways} | place | way | ratio |
|---|---|---|{rules}|---|---|---|
"""
MEASURED = max((json.loads(path.read_text()) for path in RESULTS.glob("*/types.json")), key=lambda found: found["date"])


class Row(NamedTuple):
    model_type: str
    model_class: str
    status: str
    errors: tuple[str, ...]  # by way; of a refused type, why
    place: str = ""


def row(model_type: str) -> Row:
    """What comes of a type."""
    name = TYPES[model_type]
    name = name[0] if isinstance(name, tuple) else name
    if model_type not in CONFIG_MAPPING or model_type not in types_cases.known():
        return refused(model_type, name)
    made = case(model_type)
    try:
        found = tuple(f"{each:.0e}" for each in errors(made))
        return Row(model_type, type(made.model).__name__, EXPLAINED, found, place(model_type))
    except DexarError as error:
        return Row(model_type, type(made.model).__name__, REFUSED, (reason(error),))


def refused(model_type: str, name: str) -> Row:
    """A type of which the default config is enough to say why not; untested where it would be explained."""
    from types_refused import SAID

    try:
        with torch.device("meta"):
            Explainer(getattr(transformers, name)(CONFIG_MAPPING[model_type](**SAID.get(model_type, {}))))
    except DexarError as error:
        if "meta device" not in str(error):
            return Row(model_type, name, REFUSED, (reason(error),))
    except Exception as error:  # a class that its own default config does not make
        return Row(model_type, name, UNTESTED, (f"{type(error).__name__}: {reason(error)}",))
    return Row(model_type, name, UNTESTED, ("",))


def errors(made: Case) -> list[float]:
    """How far each of WAYS is from the oracle."""
    explainer = Explainer(made.model)
    twice = [explainer.explain_inputs(made.inputs, target_ids=TARGETS) for _ in range(2)]
    expected = made.expected(TARGETS)
    found = [types_cases.error(each, expected) for each in twice]
    length = {"max_new_tokens": 4, "min_new_tokens": 4, **made.generate}
    written = explainer.explain_inputs(made.inputs, **length)
    expected = made.expected(written.token_ids)
    found.append(types_cases.error(written, expected))
    for way in (streamed, pooled):
        again = way(made, length)
        assert again.token_ids.tolist() == written.token_ids.tolist()
        found.append(types_cases.error(again, expected))
    return found


def streamed(made: Case, length: dict[str, Any]) -> Explanation:
    with Explainer(made.model).stream_inputs(made.inputs, chunk_size=1, **length) as pieces:
        for _ in pieces:
            pass
        return pieces.explanation()


def pooled(made: Case, length: dict[str, Any]) -> Explanation:
    """The second time, when the prompt is in the pool if the model can use one."""
    explainer = Explainer(made.model, pool=KVPool(4096))
    explainer.explain_inputs(made.inputs, **length)
    return explainer.explain_inputs(made.inputs, **length)


def page(rows: list[Row]) -> str:
    counts = {status: sum(row.status == status for row in rows) for status in (EXPLAINED, REFUSED, UNTESTED)}
    said = ", ".join(f"{count} {status}" for status, count in counts.items())
    narrow = [row.model_type for row in rows if row.status == EXPLAINED and max(map(float, row.errors)) > ROUNDING]
    head = HEAD.format(
        measured=f"{MEASURED['machine']['cpu']}, {MEASURED['date']}",
        narrow=", ".join(narrow),
        version=transformers.__version__,
        tokens=len(TARGETS),
        counts=f"**{len(rows)} types: {said}.**",
        ways=" | ".join(WAYS),
        rules="|".join(["---"] * len(WAYS)),
    )
    return head + "".join(map(line, rows))


def line(row: Row) -> str:
    cells = row.errors if len(row.errors) == len(WAYS) else (row.errors[0].replace("|", "\\|"), *[""] * (len(WAYS) - 1))
    cells = [*cells, row.place, *cost(row.model_type)]
    return f"| {' | '.join([row.model_type, f'`{row.model_class}`', row.status, *cells])} |\n"


def cost(model_type: str) -> tuple[str, str]:
    """The way of a type's layers and the ratio; empty where it was not measured."""
    for group in MEASURED["groups"]:
        if group["parameters"]["type"] == model_type:
            return group["notes"]["way"], f"{group['ratios']['explain/forward']['median']:.2f}"
    return "", ""


def rows(chosen: Callable[[str], bool] = lambda name: True) -> list[Row]:
    """One for each type of the transformers that is installed."""
    return [row(name) for name in sorted(TYPES) if chosen(name)]


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    wanted = sys.argv[1:]
    found = rows(lambda name: not wanted or name in wanted)
    if wanted:
        print("".join(map(line, found)))
    else:
        PAGE.write_text(page(found), encoding="utf-8")

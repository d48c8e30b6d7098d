"""How good the searches are beside the exact one: python -m bench.search_quality OUT.jsonl [--scenes 200]

On scenes that the embedded model never saw, "Describe the image.", an 8 x 8 grid, all tokens of its own answer: mean
insertion and deletion over places and tokens (their AUC) of each search. With --subject random, pictures of noise by
a LLaVA of random weights, 6 x 6. Each picture is a line of the file, which a later run goes on with. An exact search
of a scene takes half a minute of one core.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from bench import masked
from bench.masked import THEIRS, Masked
from dexar_fast import Explainer
from dexar_fast.cli.explain import SAMPLE_PROMPT
from dexar_fast.data.shapes import draw_scene
from dexar_fast.generation.runner import Runner
from dexar_fast.methods.cut.divided import divided
from dexar_fast.methods.eagle.search import search
from dexar_fast.prompt import request

FIRST_SEED = 10_000_000  # training and tuning drew others
SEARCHES: dict[str, dict[str, dict[str, Any]]] = {
    "embedded": {
        "exact": {"variant": "exact"},
        "theirs": THEIRS,
        "guided 784": {"variant": "guided", "budget": 784},
        "guided 400": {"variant": "guided", "budget": 400},
    },
    "random": {
        "exact": {"variant": "exact"},
        "theirs": THEIRS,
        "guided 441": {"variant": "guided", "budget": 441},
        "guided 225": {"variant": "guided", "budget": 225},
    },
}


def main() -> None:
    options = _options()
    known = _read(options.out)
    done = {line["picture"] for line in known}
    explainer = Explainer.from_pretrained() if options.subject == "embedded" else None
    for picture in range(options.scenes):
        if picture not in done:
            line = {"picture": picture} | _searched(options.subject, explainer, picture)
            known.append(line)
            with options.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
    _show(known[: options.scenes])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--subject", choices=[*SEARCHES], default="embedded")
    return parser.parse_args()


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _searched(subject: str, explainer: Explainer | None, picture: int) -> dict[str, Any]:
    """Insertion, deletion and forwards of each search."""
    with _scene(explainer, picture) if explainer else masked.random(36, picture) as asked:
        scorer, regions = asked.scorer(), asked.cut.count
        found = {name: search(scorer, regions, **knobs) for name, knobs in SEARCHES[subject].items()}
    return {
        name: [float(each.insertion.double().mean()), float(each.deletion.double().mean()), each.forwards]
        for name, each in found.items()
    }


@contextmanager
def _scene(explainer: Explainer, number: int) -> Iterator[Masked]:
    image = draw_scene(FIRST_SEED + number).image
    asked = request.read(explainer.processor, [image], SAMPLE_PROMPT, None, with_content=False)
    with Runner(explainer, asked, {}, None).answered() as answered:
        yield Masked(answered, divided([image], answered.grids, 64, "grid", None, "black"))


def _show(lines: list[dict[str, Any]]) -> None:
    """Means over the pictures, and their ratios to the exact search's."""
    exact = [mean(line["exact"][i] for line in lines) for i in range(2)]
    print(f"{len(lines)} pictures")
    print(f"{'search':12}{'forwards':>10}{'insertion':>11}{'of exact':>10}{'deletion':>10}{'of exact':>10}")
    for name in (name for name in lines[0] if name != "picture"):
        insertion, deletion, forwards = (mean(line[name][i] for line in lines) for i in range(3))
        shares = insertion / exact[0], deletion / exact[1]
        print(f"{name:12}{forwards:10.0f}{insertion:11.4f}{shares[0]:10.4f}{deletion:10.4f}{shares[1]:10.4f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

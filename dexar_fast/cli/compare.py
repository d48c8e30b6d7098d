"""`dexar-fast compare`: one answer explained by several methods, as a page, a picture and a file for each.

Heavy imports wait until the command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dexar_fast.cli import asking, knobs
from dexar_fast.cli.messages import errors_in_one_line
from dexar_fast.cli.options import (
    Against,
    AllowMissingWeights,
    By,
    Debug,
    Device,
    Dtype,
    Force,
    MaxNewTokens,
    Model,
    MorePictures,
    Out,
    Picture,
    Prompt,
    Response,
    Revision,
)
from dexar_fast.cli.output import folder, results
from dexar_fast.cli.output.document import comparison as document
from dexar_fast.cli.waiting import waiting
from dexar_fast.errors import InputError

if TYPE_CHECKING:
    from dexar_fast.comparison import Comparison

PAGE, PICTURE = "compare.html", "compare.png"
USUAL = "dex-ar,attention"
FEWEST = 2


def compare(
    image: Picture,
    prompt: Prompt,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME,...",
            help="Methods without knobs: dex-ar, eagle, tam, llava-cam; of attention: attention, attention-gradient, "
            "rollout, relevancy; of gradients: input-gradient, gradient-x-input, integrated-gradients, smoothgrad, "
            "attn-lrp; of hidden parts: occlusion, rise, shapley, captum, igos++; and as chance lines random, "
            "random-smooth, centre, uniform. \\[default: dex-ar,attention]",
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:KNOB=VALUE,...]",
            help="A method with knobs, behind those of --methods: eagle:regions=36,variant=exact. May be given several "
            "times.",
        ),
    ] = None,
    ensemble: Annotated[
        bool,
        typer.Option("--ensemble", help="Add the mean of the methods' ranks of each patch, and where they disagree."),
    ] = False,
    against: Against = None,
    more: MorePictures = None,
    response: Response = None,
    model: Model = None,
    revision: Revision = None,
    device: Device = None,
    device_map: knobs.DeviceMap = None,
    dtype: Dtype = None,
    out: Out = Path("out"),
    force: Force = False,
    max_new_tokens: MaxNewTokens = None,
    generate: knobs.Generate = None,
    by: By = "token",
    allow_missing_weights: AllowMissingWeights = False,
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON document: answer, tokens (text, id), methods (name, weights, summary, settings, "
            "seconds), warnings, files, metadata.",
        ),
    ] = False,
    debug: Debug = False,
) -> None:
    """Explains one answer by several methods: writes compare.html, compare.png and NAME.safetensors for each."""
    with errors_in_one_line(debug):
        asking.silence_bars(model)
        asking.check_given_answer(response, generate)
        named = _named(methods, method or [])
        options = asking.placement(model, revision, device, device_map, dtype)
        arguments = knobs.generate_settings(generate, max_new_tokens)
        pictures, chosen = _checked([image, *(more or [])], named, by, out, force)
        if against is not None:
            options |= {"method": chosen[0], "against": asking.against(against)}
        options |= {"allow_missing_weights": allow_missing_weights}
        explainer = asking.explainer(model, options, arguments)
        with waiting(f"explaining the answer by {len(chosen)} methods"):
            found = explainer.compare(pictures, prompt, chosen, response, **arguments)
            found = found.with_ensemble() if ensemble else found
        warnings = asking.warnings_of(found, explainer.warnings)
        files = folder.fill(out, _writers(found, by), results_in)
        print(document(found, warnings, files)) if json else _print(found, files, Console())


def _named(plain: str | None, with_knobs: list[str]) -> list[str]:
    """The methods of both options. Raises InputError for fewer than two, or for knobs where commas part names."""
    if plain is not None and set(plain) & {":", "="}:
        raise InputError(f"--methods {plain!r}: a method with knobs goes to --method, which may be given several times")
    if plain is None and not with_knobs:
        plain = USUAL
    named = [*filter(None, map(str.strip, (plain or "").split(","))), *with_knobs]
    if len(named) < FEWEST:
        count = f"only {named[0]!r} is" if named else "none is"
        raise InputError(f"a comparison needs two methods or more, and {count} named: write --methods dex-ar,attention")
    return named


def _checked(images: list[str], named: list[str], by: str, out: Path, force: bool) -> tuple[list[Any], list[Any]]:
    """The pictures and the methods: cheap checks come before the model is loaded."""
    from dexar_fast.report import words
    from dexar_fast.vision.images import load_images

    pictures = load_images(images)
    words.check(by)
    with waiting("loading torch and transformers"):
        from dexar_fast.methods import registry
    chosen = [registry.of(name) for name in named]
    folder.check(out, results_in, force)
    return pictures, chosen


def results_in(out: Path) -> list[str]:
    """The names of an earlier comparison's files, and of what else has their names."""
    from dexar_fast.comparison import ENSEMBLE
    from dexar_fast.methods import registry

    arrays = re.compile(rf"({'|'.join(map(_stem, (*registry.names(), *ENSEMBLE)))})(-\d+)?\.safetensors")
    listed = folder.listed(out)
    return [name for name in (PAGE, PICTURE) if name in listed] + sorted(filter(arrays.fullmatch, listed))


def _stem(name: str) -> str:
    """A method's name as a file has it: "eagle (2)" is eagle-2."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")


def _writers(found: Comparison, by: Any) -> dict[str, Callable[[Path], None]]:
    writers: dict[str, Callable[[Path], None]] = {PAGE: lambda path: found.to_html(path, by=by)}
    if found[0].grids:
        writers[PICTURE] = lambda path: found.picture().save(path)
    for name, explanation in zip(found.names, found, strict=True):
        writers[f"{_stem(name)}.safetensors"] = explanation.save
    return writers


def _print(found: Comparison, files: list[Path], console: Console) -> None:
    """The answer, how long each method took, and the files."""
    console.print(Text(found[0].text.strip()))
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("method")
    table.add_column("seconds", justify="right")
    for name, explanation in zip(found.names, found, strict=True):
        seconds = explanation.metadata["seconds"].get("explain")
        table.add_row(Text(name), "" if seconds is None else f"{seconds:.2f}")
    console.print(table)
    if not found[0].grids:
        console.print(results.NO_PICTURES)
    for path in files:
        console.print(path, soft_wrap=True, highlight=False)

"""`dexar-fast explain` and `dexar-fast demo`: a picture and a question in, a folder of results out.

Heavy imports wait until a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from dexar_fast.cli import asking, knobs
from dexar_fast.cli.loading import uncollected
from dexar_fast.cli.messages import errors_in_one_line, say
from dexar_fast.cli.options import (
    Against,
    AllowMissingWeights,
    Backend,
    By,
    ChunkSize,
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
from dexar_fast.cli.output.document import document
from dexar_fast.cli.waiting import waiting
from dexar_fast.errors import DexarError, InputError

if TYPE_CHECKING:
    from dexar_fast.explainer import Explainer
    from dexar_fast.explanation import Explanation

SAMPLE_IMAGE = Path(__file__).parents[1] / "assets" / "sample.png"
SAMPLE_PROMPT = "Describe the image."


def explain(
    image: Picture,
    prompt: Prompt,
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
    method: knobs.Method = "dex-ar",
    against: Against = None,
    mode: Annotated[str, typer.Option(help="paper, or official: what the authors' code computes.")] = "paper",
    layers: knobs.Layers = None,
    layer_index: knobs.LayerIndex = None,
    text_set: knobs.TextSet = "all",
    head_score: knobs.HeadScore = "max",
    map_filter: knobs.MapFilter = None,
    sequence_norm: knobs.SequenceNorm = "none",
    text_relevance: knobs.TextRelevance = False,
    chunk_size: ChunkSize = None,
    backend: Backend = "auto",
    by: By = "token",
    stream: Annotated[
        bool, typer.Option("--stream", help="Show the answer while it is written, coloured by the tokens' weights.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Hide the top of the map, and say whether that costs more than at blind places."),
    ] = False,
    allow_missing_weights: AllowMissingWeights = False,
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON document: answer, tokens (text, id, weight), summary, warnings, files, metadata.",
        ),
    ] = False,
    debug: Debug = False,
) -> None:
    """Explains a model's answer about an image: writes report.html, explanation.safetensors, answer.png, tokens.png."""
    options = {"method": method, "mode": mode, "layers": layers, "layer_index": layer_index, "text_set": text_set}
    options |= {"head_score": head_score, "map_filter": map_filter, "sequence_norm": sequence_norm}
    options |= {"text_relevance": text_relevance}
    options |= {} if against is None else {"against": asking.against(against)}
    options |= {"chunk_size": chunk_size, "backend": backend, "allow_missing_weights": allow_missing_weights}
    with errors_in_one_line(debug):
        asking.silence_bars(model)
        if response is not None and stream:
            raise InputError("--stream shows an answer while it is written: leave out --response")
        asking.check_given_answer(response, generate)
        if stream and json:
            raise InputError("--stream shows an answer for people to read: leave out --json")
        options |= asking.placement(model, revision, device, device_map, dtype)
        arguments = knobs.generate_settings(generate, max_new_tokens)
        task = Task([image, *(more or [])], prompt, out, response, arguments, model, by, stream, check, json, force)
        _explain(task, options)


def demo(out: Out = Path("out"), force: Force = False, debug: Debug = False) -> None:
    """Explains a sample image with the embedded model: nothing is downloaded. Replaces what an earlier demo wrote."""
    with errors_in_one_line(debug):
        asking.silence_bars(None)
        again = _of_the_demo(out)
        _explain(Task([str(SAMPLE_IMAGE)], SAMPLE_PROMPT, out, force=force or again), {})
        if again:
            say("replaced the earlier demo in", str(out))


def _of_the_demo(out: Path) -> bool:
    """Whether a folder holds what the demo wrote."""
    earlier = out / results.ARRAYS
    if not earlier.is_file():
        return False
    from dexar_fast.explanation import Explanation
    from dexar_fast.vision.images import load_images

    try:
        found = Explanation.load(earlier)
    except DexarError:
        return False
    pictures = [[image.tobytes() for image in images] for images in (found.images, load_images(str(SAMPLE_IMAGE)))]
    return pictures[0] == pictures[1] and SAMPLE_PROMPT in str(found.metadata.get("prompt"))


@dataclass(frozen=True)
class Task:
    """What to ask a model, and how to show what it answers; `arguments` are those of generate()."""

    images: list[str]
    prompt: str
    out: Path
    response: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    model: str | None = None
    by: Any = "token"
    stream: bool = False
    check: bool = False
    json: bool = False
    force: bool = False


def _explain(task: Task, options: dict[str, Any]) -> None:
    """Explains and writes the results. Cheap checks come before the model is loaded."""
    from dexar_fast.report import words
    from dexar_fast.vision.images import load_images

    pictures = load_images(task.images)
    folder.check(task.out, results.results_in, task.force)
    words.check(task.by)
    console = Console()
    with uncollected():
        explainer = asking.explainer(task.model, options, task.arguments)
    interrupt = None
    if task.stream:
        from dexar_fast.cli.terminal import show

        size = options.get("chunk_size") or asking.STREAMED_TOKENS
        pieces = explainer.stream(pictures, task.prompt, chunk_size=size, **task.arguments)
        interrupt = show(pieces, console)
        explanation = pieces.explanation()
    else:
        with waiting(f"{'' if task.response is not None else 'writing and '}explaining the answer"):
            explanation = explainer.explain(pictures, task.prompt, task.response, **task.arguments)
    if task.check:
        _check(explainer, explanation)
    warnings = asking.warnings_of([explanation], explainer.warnings)
    files = results.write(explanation, task.out, task.by)
    if task.json:
        print(document(explanation, warnings, files))
    else:
        _print(task, explanation, files, console)
    if interrupt is not None:
        raise interrupt


def _check(explainer: Explainer, explanation: Explanation) -> None:
    """What it finds stands in the report; an explanation that cannot be checked is written all the same."""
    try:
        with waiting("checking the map"):
            explainer.check(explanation)
    except InputError as error:
        say("warning:", f"the map was not checked: {error}")


def _print(task: Task, explanation: Explanation, files: list[Path], console: Console) -> None:
    (results.summarize if task.stream else results.show)(explanation, console)
    if task.model is None and task.images != [str(SAMPLE_IMAGE)]:
        console.print(asking.EMBEDDED)
    for path in files:
        console.print(path, soft_wrap=True, highlight=False)

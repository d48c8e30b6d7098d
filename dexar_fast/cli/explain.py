"""`dexar-fast explain` and `dexar-fast demo`: a picture and a question in, a folder of results out.

Heavy imports wait until a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from dexar_fast.cli import knobs, output
from dexar_fast.cli.document import document
from dexar_fast.cli.loading import uncollected
from dexar_fast.cli.messages import errors_in_one_line, say
from dexar_fast.cli.options import Backend, ChunkSize, Debug, Device, Dtype, Force, Out
from dexar_fast.cli.waiting import waiting
from dexar_fast.errors import DexarError, InputError

if TYPE_CHECKING:
    from dexar_fast.explainer import Explainer
    from dexar_fast.explanation import Explanation
    from dexar_fast.generation.stream import Stream

SAMPLE_IMAGE = Path(__file__).parents[1] / "assets" / "sample.png"
SAMPLE_PROMPT = "Describe the image."
STREAMED_TOKENS = 8  # shown at a time; each token is run twice, so fewer cost more


def explain(
    image: Annotated[str, typer.Argument(help="An image file.")],
    prompt: Annotated[str, typer.Argument(help="What to ask about it.")],
    more: Annotated[
        list[str] | None,
        typer.Option("--image", help="A further image of the prompt, behind the first. May be given several times."),
    ] = None,
    response: Annotated[str | None, typer.Option(help="Explain this answer instead of generating one.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="A model's name on the Hub, or its folder. [default: the embedded model]"),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="The branch, tag or commit of the model on the Hub.")] = None,
    device: Device = None,
    device_map: knobs.DeviceMap = None,
    dtype: Dtype = None,
    out: Out = Path("out"),
    force: Force = False,
    max_new_tokens: Annotated[int | None, typer.Option(help="Stop generating after so many.")] = None,
    generate: knobs.Generate = None,
    mode: Annotated[str, typer.Option(help="paper, or official: what the authors' code computes.")] = "paper",
    layers: knobs.Layers = None,
    layer_index: knobs.LayerIndex = None,
    text_set: knobs.TextSet = "all",
    head_score: knobs.HeadScore = "max",
    map_filter: knobs.MapFilter = None,
    sequence_norm: knobs.SequenceNorm = "none",
    chunk_size: ChunkSize = None,
    backend: Backend = "auto",
    by: Annotated[str, typer.Option(help="What the report shows as one: token or word.")] = "token",
    stream: Annotated[
        bool, typer.Option("--stream", help="Show the answer while it is written, coloured by the tokens' weights.")
    ] = False,
    allow_missing_weights: Annotated[
        bool, typer.Option("--allow-missing-weights", help="Go on where the checkpoint lacks weights of the model.")
    ] = False,
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
    options = {"mode": mode, "layers": layers, "layer_index": layer_index, "text_set": text_set}
    options |= {"head_score": head_score, "map_filter": map_filter, "sequence_norm": sequence_norm}
    options |= {"chunk_size": chunk_size, "backend": backend, "allow_missing_weights": allow_missing_weights}
    with errors_in_one_line(debug):
        _silence_bars(model)
        if response is not None and (stream or generate):
            left_out = (
                "--stream shows an answer while it is written" if stream else "--generate says how one is written"
            )
            raise InputError(f"{left_out}: leave out --response")
        if stream and json:
            raise InputError("--stream shows an answer for people to read: leave out --json")
        options |= _placement(model, revision, device, device_map) | {"dtype": dtype}
        arguments = knobs.generate_settings(generate, max_new_tokens)
        task = Task([image, *(more or [])], prompt, out, response, arguments, model, by, stream, json, force)
        _explain(task, options)


def _placement(model: str | None, revision: str | None, device: str | None, device_map: str | None) -> dict[str, Any]:
    """Which version of a model to load, and where to put it; only what is given."""
    if revision is not None and model is None:
        raise InputError("--revision is that of a model on the Hub: name one with --model")
    if device is not None and device_map is not None:
        raise InputError("--device and --device-map both say where the model goes: leave one out")
    found = {"revision": revision, "device": device}
    found |= {"device_map": None if device_map is None else knobs.json_or_text(device_map)}
    return {name: value for name, value in found.items() if value is not None}


def demo(out: Out = Path("out"), force: Force = False, debug: Debug = False) -> None:
    """Explains a sample image with the embedded model: nothing is downloaded. Replaces what an earlier demo wrote."""
    with errors_in_one_line(debug):
        _silence_bars(None)
        again = _of_the_demo(out)
        _explain(Task([str(SAMPLE_IMAGE)], SAMPLE_PROMPT, out, force=force or again), {})
        if again:
            say("replaced the earlier demo in", str(out))


def _of_the_demo(out: Path) -> bool:
    """Whether a folder holds what the demo wrote."""
    earlier = out / output.ARRAYS
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
    json: bool = False
    force: bool = False


def _explain(task: Task, options: dict[str, Any]) -> None:
    """Explains and writes the results. Cheap checks come before the model is loaded."""
    from dexar_fast.report import words
    from dexar_fast.vision.images import load_images

    pictures = load_images(task.images)
    output.check_writable(task.out, task.force)
    words.check(task.by)
    console = Console()
    with uncollected():
        explainer = _load(task.model, options)
    knobs.check_sampling(explainer.model, task.arguments)
    warnings = list(explainer.warnings)
    for warning in warnings:
        say("warning:", warning)
    interrupt = None
    if task.stream:
        size = options.get("chunk_size") or STREAMED_TOKENS
        pieces = explainer.stream(pictures, task.prompt, chunk_size=size, **task.arguments)
        interrupt = _show(pieces, console)
        explanation = pieces.explanation()
    else:
        with waiting(f"{'' if task.response is not None else 'writing and '}explaining the answer"):
            explanation = explainer.explain(pictures, task.prompt, task.response, **task.arguments)
    for warning in explanation.diagnostics.get("warnings", []):
        if warning not in warnings:
            warnings.append(warning)
            say("warning:", warning)
    files = output.write(explanation, task.out, task.by)
    if task.json:
        print(document(explanation, warnings, files))
    else:
        _print(task, explanation, files, console)
    if interrupt is not None:
        raise interrupt


def _load(model: str | None, options: dict[str, Any]) -> Explainer:
    with waiting("loading torch and transformers"):
        from dexar_fast import Explainer
    with nullcontext() if _may_download(model) else waiting("loading the model"):
        return Explainer.from_pretrained(model, **options)


def _may_download(model: str | None) -> bool:
    """Whether the libraries below show their own progress bars, beside which a line of ours would be in the way."""
    return model is not None and not os.path.exists(model)


def _silence_bars(model: str | None) -> None:
    """Before those libraries are imported."""
    if not _may_download(model):
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _print(task: Task, explanation: Explanation, files: list[Path], console: Console) -> None:
    (output.summarize if task.stream else output.show)(explanation, console)
    for path in files:
        console.print(path, soft_wrap=True, highlight=False)


def _show(pieces: Stream, console: Console) -> KeyboardInterrupt | None:
    """Shows an answer as it comes; returns the interrupt that ended it when some of it was there."""
    from dexar_fast.cli.terminal import Writing

    shown = 0
    try:
        with Writing(console) as page, pieces:
            for piece in pieces:
                page.add(piece)
                shown += 1
    except KeyboardInterrupt as interrupt:
        if not shown:
            raise
        return interrupt
    return None

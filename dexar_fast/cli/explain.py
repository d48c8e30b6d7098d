"""`dexar-fast explain` and `dexar-fast demo`: a picture and a question in, a folder of results out.

Heavy imports wait until a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from dexar_fast.cli import output
from dexar_fast.cli.messages import errors_in_one_line, say
from dexar_fast.cli.options import Backend, ChunkSize, Debug, Device, Dtype, Out
from dexar_fast.errors import InputError

if TYPE_CHECKING:
    from dexar_fast.generation.stream import Stream

SAMPLE_IMAGE = Path(__file__).parents[1] / "assets" / "sample.png"
SAMPLE_PROMPT = "Describe the image."
STREAMED_TOKENS = 8  # shown at a time; each token is run twice, so fewer cost more


def explain(
    image: Annotated[str, typer.Argument(help="An image file.")],
    prompt: Annotated[str, typer.Argument(help="What to ask about it.")],
    response: Annotated[str | None, typer.Option(help="Explain this answer instead of generating one.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="A model's name on the Hub, or its folder. [default: the embedded model]"),
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    out: Out = Path("out"),
    max_new_tokens: Annotated[int | None, typer.Option(help="Stop generating after so many.")] = None,
    mode: Annotated[str, typer.Option(help="paper, or official: what the authors' code computes.")] = "paper",
    chunk_size: ChunkSize = None,
    text_set: Annotated[str, typer.Option(help="Keys that count as text: all, content, prompt or generated.")] = "all",
    backend: Backend = "auto",
    by: Annotated[str, typer.Option(help="What the report shows as one: token or word.")] = "token",
    stream: Annotated[
        bool, typer.Option("--stream", help="Show the answer while it is written, coloured by the tokens' weights.")
    ] = False,
    allow_missing_weights: Annotated[
        bool, typer.Option("--allow-missing-weights", help="Go on where the checkpoint lacks weights of the model.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Explains a model's answer about an image: writes report.html, explanation.safetensors, answer.png, tokens.png."""
    options = {"device": device, "dtype": dtype, "mode": mode, "chunk_size": chunk_size}
    options |= {"text_set": text_set, "backend": backend, "allow_missing_weights": allow_missing_weights}
    with errors_in_one_line(debug):
        _explain(image, prompt, out, response, max_new_tokens, model, by, stream, **options)


def demo(out: Out = Path("out"), debug: Debug = False) -> None:
    """Explains a sample image with the embedded model: nothing is downloaded."""
    with errors_in_one_line(debug):
        _explain(str(SAMPLE_IMAGE), SAMPLE_PROMPT, out)


def _explain(
    image: str,
    prompt: str,
    out: Path,
    response: str | None = None,
    max_new_tokens: int | None = None,
    model: str | None = None,
    by: Any = "token",
    stream: bool = False,
    **options: Any,
) -> None:
    """Explains and writes the results. Cheap checks come before the model is loaded."""
    from dexar_fast.report import words
    from dexar_fast.vision.images import load_images

    if stream and response is not None:
        raise InputError("--stream shows an answer while it is written: leave out --response")
    picture = load_images(image)
    output.check_writable(out)
    words.check(by)
    from dexar_fast import Explainer

    explainer, console = Explainer.from_pretrained(model, **options), Console()
    for warning in explainer.warnings:
        say("warning:", warning)
    interrupt = None
    if stream:
        size = options.get("chunk_size") or STREAMED_TOKENS
        pieces = explainer.stream(picture, prompt, chunk_size=size, max_new_tokens=max_new_tokens)
        interrupt = _show(pieces, console)
        explanation = pieces.explanation()
    else:
        explanation = explainer.explain(picture, prompt, response, max_new_tokens=max_new_tokens)
    for warning in explanation.diagnostics.get("warnings", []):
        if warning not in explainer.warnings:
            say("warning:", warning)
    written = output.write(explanation, out, by)
    (output.summarize if stream else output.show)(explanation, console)
    for path in written:
        console.print(path, soft_wrap=True, highlight=False)
    if interrupt is not None:
        raise interrupt


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

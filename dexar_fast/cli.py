"""The command line: `dexar-fast explain`, `dexar-fast demo`, `dexar-fast doctor`.

Heavy imports wait until a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from dexar_fast import output
from dexar_fast.errors import DexarError, InputError

if TYPE_CHECKING:
    from dexar_fast.stream import Stream

SAMPLE_IMAGE = Path(__file__).parent / "assets" / "sample.png"
SAMPLE_PROMPT = "Describe the image."
STREAMED_TOKENS = 8  # shown at a time; each token is run twice, so fewer cost more
FAILED = 2
INTERRUPTED = 128 + signal.SIGINT
# Of the classes that Typer raises for a wrong command line it gives out this one only; what it stands on differs
# between versions.
UsageError: Any = typer.BadParameter.__base__

app = typer.Typer(
    help="Shows which parts of the image each word of a vision-language model's answer depended on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Out = Annotated[Path, typer.Option(help="Folder for the results; made if it does not exist.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.command()
def explain(
    image: Annotated[str, typer.Argument(help="An image file.")],
    prompt: Annotated[str, typer.Argument(help="What to ask about it.")],
    response: Annotated[str | None, typer.Option(help="Explain this answer instead of generating one.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="A model's name on the Hub, or its folder. [default: the embedded model]"),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, float16 or float64.")] = None,
    out: Out = Path("out"),
    max_new_tokens: Annotated[int | None, typer.Option(help="Stop generating after so many.")] = None,
    mode: Annotated[str, typer.Option(help="paper, or official: what the authors' code computes.")] = "paper",
    chunk_size: Annotated[int | None, typer.Option(help="Tokens explained at a time.")] = None,
    text_set: Annotated[str, typer.Option(help="Keys that count as text: all, content, prompt or generated.")] = "all",
    backend: Annotated[str, typer.Option(help="auto, or the one all operations shall take.")] = "auto",
    stream: Annotated[
        bool, typer.Option("--stream", help="Show the answer while it is written, coloured by the tokens' weights.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Explains a model's answer about an image: writes report.html, explanation.safetensors, answer.png, tokens.png."""
    options = {"device": device, "dtype": dtype, "mode": mode, "chunk_size": chunk_size}
    options |= {"text_set": text_set, "backend": backend}
    with errors_in_one_line(debug):
        _explain(image, prompt, out, response, max_new_tokens, model, stream, **options)


@app.command()
def demo(out: Out = Path("out"), debug: Debug = False) -> None:
    """Explains a sample image with the embedded model: nothing is downloaded."""
    with errors_in_one_line(debug):
        _explain(str(SAMPLE_IMAGE), SAMPLE_PROMPT, out)


@app.command()
def doctor() -> None:
    """Says what is installed, what the machine offers, and which backend each operation takes and why."""
    from dexar_fast.doctor import diagnose, render

    render(diagnose(), Console())


def _explain(
    image: str,
    prompt: str,
    out: Path,
    response: str | None = None,
    max_new_tokens: int | None = None,
    model: str | None = None,
    stream: bool = False,
    **options: Any,
) -> None:
    """What is cheap to check is checked before the model is loaded."""
    from dexar_fast.images import load_images

    if stream and response is not None:
        raise InputError("--stream shows an answer while it is written: leave out --response")
    picture = load_images(image)
    output.check_writable(out)
    from dexar_fast import Explainer

    explainer, console = Explainer.from_pretrained(model, **options), Console()
    interrupt = None
    if stream:
        size = options.get("chunk_size") or STREAMED_TOKENS
        pieces = explainer.stream(picture, prompt, chunk_size=size, max_new_tokens=max_new_tokens)
        interrupt = _show(pieces, console)
        explanation = pieces.explanation()
    else:
        explanation = explainer.explain(picture, prompt, response, max_new_tokens=max_new_tokens)
    written = output.write(explanation, out)
    (output.summarize if stream else output.show)(explanation, console)
    for path in written:
        console.print(path, soft_wrap=True, highlight=False)
    if interrupt is not None:
        raise interrupt


def _show(pieces: Stream, console: Console) -> KeyboardInterrupt | None:
    """Shows an answer as it comes; returns the interrupt that ended it when some of it was there."""
    from dexar_fast.terminal import Writing

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


def main() -> None:
    """Entry point of the `dexar-fast` program."""
    _tame_streams()
    signal.signal(signal.SIGTERM, _stop)
    try:
        status = app(prog_name="dexar-fast", standalone_mode=False)
    except UsageError as error:
        if error.format_message():  # none where no arguments at all have brought up the help
            _say(error.format_message(), f"(see {error.ctx.command_path if error.ctx else 'dexar-fast'} --help)")
        status = FAILED
    if status:
        sys.exit(status)


def _stop(number: int, frame: Any) -> None:
    """Ends the program as an error does: temporary files are deleted on the way out."""
    raise SystemExit(128 + number)


def _tame_streams() -> None:
    """Characters the terminal cannot show become question marks; libraries report errors only, and raise those."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@contextmanager
def errors_in_one_line(debug: bool) -> Iterator[None]:
    """Ends the program with one line on stderr: for a DexarError with status 2, for Ctrl-C with 130."""
    try:
        yield
    except DexarError as error:
        if debug:
            raise
        _say(str(error))
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        if debug:
            raise
        _say("interrupted")
        raise typer.Exit(INTERRUPTED) from None


def _say(*texts: str) -> None:
    """One line on stderr, whatever the texts hold."""
    print("dexar-fast:", *" ".join(texts).split(), file=sys.stderr)

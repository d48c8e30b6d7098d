"""The command line: `dexar-fast explain`, `dexar-fast demo`, `dexar-fast profile`, `dexar-fast doctor`.

Heavy imports wait until a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from dexar_fast.cli import output
from dexar_fast.errors import DexarError, InputError

if TYPE_CHECKING:
    from dexar_fast.generation.stream import Stream

SAMPLE_IMAGE = Path(__file__).parents[1] / "assets" / "sample.png"
SAMPLE_PROMPT = "Describe the image."
STREAMED_TOKENS = 8  # shown at a time; each token is run twice, so fewer cost more
FAILED = 2
INTERRUPTED = 128 + signal.SIGINT
# For a wrong command line Typer raises several classes and exports only this one; their base differs between versions.
UsageError: Any = typer.BadParameter.__base__

app = typer.Typer(
    help="Shows which parts of the image each word of a vision-language model's answer depended on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _folder(out: str | Path) -> Path:
    """A folder; not an empty name, which Path would take for the current folder."""
    if not os.fspath(out):
        raise typer.BadParameter("it is empty: name a folder")
    return Path(out)


Out = Annotated[
    Path, typer.Option(help="Folder for the results; made if it does not exist.", parser=_folder, metavar="PATH")
]
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


@app.command()
def demo(out: Out = Path("out"), debug: Debug = False) -> None:
    """Explains a sample image with the embedded model: nothing is downloaded."""
    with errors_in_one_line(debug):
        _explain(str(SAMPLE_IMAGE), SAMPLE_PROMPT, out)


@app.command()
def profile(
    model: Annotated[
        str | None,
        typer.Argument(
            help="llava-1.5-7b, qwen2.5-vl-7b, paligemma-3b or llava-512 with random weights, or a model's name on the "
            "Hub, or its folder. [default: the embedded model]"
        ),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Pixels of the square image, where the model has a choice.")
    ] = None,
    prompt_tokens: Annotated[int | None, typer.Option(help="Of the whole prompt. [default: a short question]")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens to generate and explain.")] = 32,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, float16 or float64.")] = None,
    chunk_size: Annotated[int | None, typer.Option(help="Tokens explained at a time.")] = None,
    backend: Annotated[str, typer.Option(help="auto, or the one all operations shall take.")] = "auto",
    rounds: Annotated[int, typer.Option(min=1, help="Repeats of every run.")] = 5,
    json: Annotated[Path | None, typer.Option(help="Write all figures to this file.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Write a trace for Chrome or Perfetto.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the roofline and the stages into this PNG or PDF file.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Shows what an explanation costs on this machine, where the time goes, and how far it is from the limit."""
    with errors_in_one_line(debug):
        from dexar_fast.profile.command import Files, run

        files = Files(json, trace, plot)
        sizes = {"image_size": image_size, "prompt_tokens": prompt_tokens, "new_tokens": tokens}
        options = {"device": device, "dtype": dtype, "chunk_size": chunk_size, "backend": backend}
        run(model, files, Console(), rounds, **sizes, **options)


@app.command()
def doctor() -> None:
    """Says what is installed, what the machine offers, and which backend each operation takes and why."""
    from dexar_fast.cli.doctor import diagnose, render

    render(diagnose(), Console())


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
        _say("warning:", warning)
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
            _say("warning:", warning)
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


def main() -> None:
    """Entry point of the `dexar-fast` program."""
    _tame_streams()
    signal.signal(signal.SIGTERM, _stop)
    try:
        status = app(prog_name="dexar-fast", standalone_mode=False)
    except UsageError as error:
        if error.format_message():  # empty if there were no arguments, and the help was shown
            _say(error.format_message(), f"(see {error.ctx.command_path if error.ctx else 'dexar-fast'} --help)")
        status = FAILED
    if status:
        sys.exit(status)


def _stop(number: int, frame: Any) -> None:
    """Ends the program as an error does, so that temporary files are deleted on the way out."""
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
    """Ends the program with one line on stderr, or a traceback: for a DexarError with status 2, for Ctrl-C with 130."""
    try:
        yield
    except (DexarError, KeyboardInterrupt) as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        if debug:
            traceback.print_exc()
        else:
            _say("interrupted" if interrupted else str(error))
        raise typer.Exit(INTERRUPTED if interrupted else FAILED) from None


def _say(*texts: str) -> None:
    """One line on stderr, whatever the texts hold."""
    print("dexar-fast:", *" ".join(texts).split(), file=sys.stderr)

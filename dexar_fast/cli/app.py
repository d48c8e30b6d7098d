"""The command line: `dexar-fast explain`, `compare`, `chat`, `serve`, `demo`, `run`, `merge`, `eval`, and two more.

Heavy imports wait until a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from dexar_fast import __version__
from dexar_fast.cli import compare, explain, serve, streams
from dexar_fast.cli.chat import command as chat
from dexar_fast.cli.jobs import evaluate, run
from dexar_fast.cli.messages import FAILED, errors_in_one_line, say
from dexar_fast.cli.options import EXIT_STATUS, Backend, ChunkSize, Debug, Device, Dtype
from dexar_fast.errors import FileError, InputError

# For a wrong command line Typer raises several classes and exports only this one; their base differs between versions.
UsageError: Any = typer.BadParameter.__base__

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

app.command(epilog=EXIT_STATUS)(explain.explain)
app.command(epilog=EXIT_STATUS)(compare.compare)
app.command(epilog=EXIT_STATUS)(chat.chat)
app.command(epilog=EXIT_STATUS)(serve.serve)
app.command(epilog=EXIT_STATUS)(explain.demo)
app.command(epilog=run.EXIT_STATUS)(run.run)
app.command(epilog=run.EXIT_STATUS)(run.merge)
app.command("eval", epilog=run.EXIT_STATUS)(evaluate.evaluate)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"dexar-fast {__version__}")
        raise typer.Exit


@app.callback(epilog=EXIT_STATUS)
def _program(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Shows which parts of the image each word of a vision-language model's answer depended on."""


@app.command(epilog=EXIT_STATUS)
def profile(
    model: Annotated[
        str | None,
        typer.Argument(
            help="llava-1.5-7b, qwen2.5-vl-7b, paligemma-3b or llava-512 with random weights, or a model's name on the "
            "Hub, or its folder. \\[default: the embedded model]"
        ),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Pixels of the square image, where the model has a choice.")
    ] = None,
    prompt_tokens: Annotated[
        int | None, typer.Option(help="Of the whole prompt. \\[default: a short question]")
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens to generate and explain.")] = 32,
    device: Device = None,
    dtype: Dtype = None,
    chunk_size: ChunkSize = None,
    backend: Backend = "auto",
    rounds: Annotated[int, typer.Option(min=1, help="Repeats of every run.")] = 5,
    batch: Annotated[
        str | None, typer.Option(help="Sizes of batches, as in 1,4,16: tokens a second of each are shown, too.")
    ] = None,
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
        run(model, files, Console(), rounds, _batches(batch), **sizes, **options)


def _batches(sizes: str | None) -> list[int]:
    """Raises InputError."""
    if sizes is None:
        return []
    if not all(size.strip().isdecimal() and int(size) for size in sizes.split(",")):
        raise InputError(f"--batch takes sizes of batches, as in 1,4,16, not {sizes!r}")
    return [int(size) for size in sizes.split(",")]


@app.command(epilog=EXIT_STATUS)
def doctor(
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON document: versions, machine, operations, verdicts: lists of {name, value, note}.",
        ),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(help="Also say what would be explained of this model: its name on the Hub, or its folder."),
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="First judge anew which kernels this machine takes: some minutes on a GPU."),
    ] = False,
    debug: Debug = False,
) -> None:
    """Says what is installed, what the machine offers, which backend each operation takes, and what a model allows."""
    with errors_in_one_line(debug):
        from dexar_fast.cli.doctor.findings import document, render
        from dexar_fast.cli.doctor.installed import diagnose
        from dexar_fast.cli.doctor.judged import judge

        about = {}
        if model is not None:
            from dexar_fast.cli.doctor.examined import examine

            about["model"] = examine(model, device, dtype)
        if measure:
            judge(say)
        diagnosis = diagnose() | about
        print(document(diagnosis)) if json else render(diagnosis, Console())


def main() -> None:
    """Entry point of the `dexar-fast` program."""
    streams.tame()
    _tame_libraries()
    signal.signal(signal.SIGTERM, _stop)
    try:
        status = app(prog_name="dexar-fast", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except UsageError as error:
        if error.format_message():  # empty if there were no arguments, and the help was shown
            say(error.format_message(), f"(see {error.ctx.command_path if error.ctx else 'dexar-fast'} --help)")
        status = FAILED
    except FileError as error:
        say(str(error))
        status = FAILED
    if status:
        sys.exit(status)


def _stop(number: int, frame: Any) -> None:
    """Ends the program as an error does, so that temporary files are deleted on the way out."""
    raise SystemExit(128 + number)


def _tame_libraries() -> None:
    """Libraries report errors only, and raise those."""
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

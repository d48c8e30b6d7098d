"""`dexar-fast serve`: the page to ask and look, as a server.

Heavy imports wait until the command runs, so that `--help` answers at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from dexar_fast.cli import asking, knobs
from dexar_fast.cli.loading import uncollected
from dexar_fast.cli.messages import errors_in_one_line, say
from dexar_fast.cli.options import AllowMissingWeights, Backend, Debug, Device, Dtype
from dexar_fast.cli.waiting import waiting
from dexar_fast.errors import InputError, LibraryError, ModelError

if TYPE_CHECKING:
    from dexar_fast.serve.models import Models

LOCAL = ("127.0.0.1", "localhost", "::1")
ANYWHERE = ("0.0.0.0", "::")
INSTALL = "the page needs Gradio: pip install 'dexar-fast[serve]'"


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A model's name on the Hub, or its folder; visitors choose among these alone. May be given several "
            "times. \\[default: the embedded model, which knows coloured shapes only]"
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen at; 0.0.0.0 lets other machines in.")] = LOCAL[0],
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="\\[default: the first free one from 7860 on]")
    ] = None,
    password: Annotated[
        str | None, typer.Option(envvar="DEXAR_FAST_PASSWORD", help="Ask visitors for it; any name will do.")
    ] = None,
    device: Device = None,
    device_map: knobs.DeviceMap = None,
    dtype: Dtype = None,
    backend: Backend = "auto",
    chunk_size: Annotated[int, typer.Option(min=1, help="Tokens shown at a time while an answer is written.")] = 1,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The most that an answer may have.")] = 128,
    pictures: Annotated[int, typer.Option(min=1, help="The most in a question; frames of a video count.")] = 8,
    megabytes: Annotated[int, typer.Option(min=1, help="The most that a picture's file may have.")] = 8,
    megapixels: Annotated[int, typer.Option(min=1, help="The most that a picture may have.")] = 32,
    seconds: Annotated[float, typer.Option(min=1, help="The most that an explanation may take.")] = 120,
    rate: Annotated[int, typer.Option(min=1, help="Requests a minute that are taken from one address.")] = 30,
    allow_missing_weights: AllowMissingWeights = False,
    debug: Debug = False,
) -> None:
    """Serves a page to ask about pictures and to see what each word of the answer rests on, until Ctrl-C."""
    with errors_in_one_line(debug):
        asking.silence_bars(next(iter(model or []), None))
        options = asking.placement(None, None, device, device_map, dtype)
        options |= {"backend": backend, "allow_missing_weights": allow_missing_weights}
        limits: dict[str, Any] = {"pictures": pictures, "file_bytes": megabytes * 2**20, "pixels": megapixels * 2**20}
        limits |= {"tokens": max_new_tokens, "seconds": seconds, "a_minute": rate}
        if password == "":
            raise InputError("an empty password keeps nobody out: name one, or leave --password away")
        if host not in LOCAL and password is None:
            say("anyone who reaches", host, "may use the page: --password asks for one")
        _serve(_loaded(model or [], options), limits, chunk_size, host, port, password)


def _loaded(names: list[str], options: dict[str, Any]) -> Models:
    """The models; what fails to load is said. Raises ModelError where none is left, LibraryError without Gradio."""
    with waiting("loading torch, transformers and Gradio"):
        try:
            import gradio  # noqa: F401
        except ImportError:
            raise LibraryError(INSTALL) from None
        from dexar_fast.serve.models import Models
    with uncollected():
        found = Models.load(names, **options)
    for failure in found.failures:
        say(str(failure))
    if len(found.failures) == len(found.names):
        raise ModelError("no model is left to serve")
    return found


def _serve(
    models: Models, limits: dict[str, Any], chunk: int, host: str, port: int | None, password: str | None
) -> None:
    from dexar_fast.serve import server
    from dexar_fast.serve.limits import Limits

    allowed = Limits(**limits)
    blocks, _ = server.page(models, allowed, chunk)
    address = server.start(blocks, allowed, host, port, password)
    say("the page is at", address, "until Ctrl-C")
    if host in ANYWHERE:
        say("other machines reach it by the name or address of this one, port", str(urlsplit(address).port))
    server.wait(blocks)

"""The page as a server: built, then started on an address."""

from __future__ import annotations

import atexit
import hmac
import os
import shutil
import socket
import tempfile
from threading import Event

import gradio as gr
from starlette.middleware import Middleware

from dexar_fast.errors import InputError, cause
from dexar_fast.serve.guard import Guard
from dexar_fast.serve.limits import Limits
from dexar_fast.serve.models import Models
from dexar_fast.serve.page.answers import Answers
from dexar_fast.serve.page.events import connect
from dexar_fast.serve.page.examples import examples
from dexar_fast.serve.page.layout import build
from dexar_fast.serve.visits import MOST_VISITS
from dexar_fast.serve.work.growing import asset

WAITING = 64  # questions of all visitors; more are told that the server is busy
FONTS = ["ui-sans-serif", "system-ui", "sans-serif"]  # of the visitor's machine: nothing is fetched
CODE_FONTS = ["ui-monospace", "Menlo", "monospace"]
DOOR = "dexar_fast: ask about a picture, and see where the answer came from. Give any name; the password counts."
DARK = "#1d1b22"  # letters on amber: white ones could not be read


def page(models: Models, limits: Limits, chunk: int = 1) -> tuple[gr.Blocks, Answers]:
    """The page, and its server's side."""
    _own_folder()
    answers, shown = Answers(models, limits, chunk), examples()
    with gr.Blocks(title="dexar_fast", analytics_enabled=False) as blocks:
        connect(blocks, build(models, shown, limits), answers, shown)
    blocks.queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)
    return blocks, answers


def start(blocks: gr.Blocks, limits: Limits, host: str, port: int | None, password: str | None) -> str:
    """Starts the server in threads of its own; its address. Raises InputError where it cannot listen."""
    _check_address(host, port)
    blocks.launch(
        server_name=host,
        server_port=port,
        auth=None if password is None else lambda _, given: hmac.compare_digest(given.encode(), password.encode()),
        auth_message=DOOR,
        share=False,
        allowed_paths=[],
        blocked_paths=["/"],
        state_session_capacity=MOST_VISITS,
        max_file_size=limits.file_bytes,
        app_kwargs={"middleware": [Middleware(Guard, most=limits.body_bytes)]},
        enable_monitoring=False,
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        footer_links=["api", "settings"],
        css=asset("page.css"),
        theme=_theme(),
        quiet=True,
        prevent_thread_lock=True,
    )
    return str(blocks.local_url)


def _own_folder() -> None:
    """For Gradio's files, which components name as they are made; it stays empty: no upload is taken."""
    folder = tempfile.mkdtemp(prefix="dexar-fast-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = folder


def _check_address(host: str, port: int | None) -> None:
    """Before Gradio tries, which takes every reason for a port in use."""
    where = host if port is None else f"{host}, port {port}"
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as found:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            found.bind(address)
    except (OSError, UnicodeError) as error:
        raise InputError(f"cannot listen at {where}: {cause(error)}: name another --host or --port") from None


def wait(blocks: gr.Blocks) -> None:
    """Until Ctrl-C, or the process is told to end; then the server is closed."""
    try:
        Event().wait()
    finally:
        blocks.close(verbose=False)


def _theme() -> gr.themes.Base:
    theme = gr.themes.Default(primary_hue="amber", font=FONTS, font_mono=CODE_FONTS)
    return theme.set(
        button_primary_text_color=DARK,
        button_primary_text_color_dark=DARK,
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
    )

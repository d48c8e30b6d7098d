"""The command: a picture and questions in, answers on the terminal, a folder for each turn.

Heavy imports wait until the command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from dexar_fast.cli import asking, knobs
from dexar_fast.cli.chat import questions
from dexar_fast.cli.loading import uncollected
from dexar_fast.cli.messages import errors_in_one_line, say
from dexar_fast.cli.options import (
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
    Revision,
)
from dexar_fast.cli.output import folder, results
from dexar_fast.errors import InputError

if TYPE_CHECKING:
    from dexar_fast.conversation import Chat
    from dexar_fast.explanation import Explanation

TURN = "turn-{}"


def chat(
    image: Picture,
    more: MorePictures = None,
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
    chunk_size: ChunkSize = None,
    backend: Backend = "auto",
    by: By = "token",
    allow_missing_weights: AllowMissingWeights = False,
    debug: Debug = False,
) -> None:
    """Answers questions about an image, one a line, and explains each answer: turn-1, turn-2, ... hold its report."""
    options = {"method": method, "chunk_size": chunk_size, "backend": backend}
    options |= {"allow_missing_weights": allow_missing_weights}
    with errors_in_one_line(debug):
        asking.silence_bars(model)
        options |= asking.placement(model, revision, device, device_map, dtype)
        arguments = knobs.generate_settings(generate, max_new_tokens)
        begun = _begin([image, *(more or [])], model, options, arguments, out, force, by)
        _talk(begun, arguments | {"chunk_size": chunk_size or asking.STREAMED_TOKENS}, out, by)


def _begin(
    images: list[str],
    model: str | None,
    options: dict[str, Any],
    arguments: dict[str, Any],
    out: Path,
    force: bool,
    by: Any,
) -> Chat:
    """The chat. Cheap checks come before the model is loaded."""
    from dexar_fast.report import words
    from dexar_fast.vision.images import load_images

    pictures = load_images(images)
    folder.check(out, turns_in, force)
    words.check(by)
    with uncollected():
        found = asking.explainer(model, options, arguments)
    if model is None:
        say(asking.EMBEDDED)
    return found.chat(pictures)


def turns_in(out: Path) -> list[str]:
    """The folders that an earlier conversation has left."""
    return sorted(filter(re.compile(TURN.format(r"\d+")).fullmatch, folder.listed(out)))


def _talk(chat: Chat, arguments: dict[str, Any], out: Path, by: Any) -> None:
    """Asks each question. On a terminal one that is refused is no end."""
    console, said = Console(), list[str]()
    for question in questions.asked():
        try:
            found = _answered(chat, question, arguments, console)
        except InputError as error:
            if not questions.is_terminal():
                raise
            say(str(error))
            continue
        said = asking.warnings_of([found], said)
        console.print(_written(found, out, len(chat.turns), by), soft_wrap=True, highlight=False)


def _answered(chat: Chat, question: str, arguments: dict[str, Any], console: Console) -> Explanation:
    """The explanation of an answer, which is shown while it is written."""
    from dexar_fast.cli.terminal import show

    pieces = chat.stream(question, **arguments)
    interrupt = show(pieces, console)
    if interrupt is not None:
        raise interrupt
    found = pieces.explanation()
    results.summarize(found, console)
    return found


def _written(found: Explanation, out: Path, turn: int, by: Any) -> Path:
    """The report of a turn, in a folder of its own with all else; the first one replaces an earlier conversation."""
    if turn == 1:
        for earlier in turns_in(out):
            folder.fill(out / earlier, {}, results.results_in)
            with suppress(OSError):  # a file of the user's is in it
                (out / earlier).rmdir()
    own = out / TURN.format(turn)
    folder.check(own, results.results_in, force=True)
    return results.write(found, own, by)[0]

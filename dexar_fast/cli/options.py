"""The options that several commands take."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def folder(out: str | Path) -> Path:
    """A folder; not an empty name, which Path would take for the current folder."""
    if not os.fspath(out):
        raise typer.BadParameter("it is empty: name a folder")
    return Path(out)


Out = Annotated[
    Path, typer.Option(help="Folder for the results; made if it does not exist.", parser=folder, metavar="PATH")
]
Force = Annotated[bool, typer.Option("--force", help="Replace an earlier result in that folder.")]
EXIT_STATUS = (
    "Exit status: 0 done; 2 refused, one line on stderr says why; 130 interrupted (Ctrl-C); 143 terminated; 1 a fault "
    "of dexar-fast, with its traceback."
)

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16, float16 or float64.")]
ChunkSize = Annotated[int | None, typer.Option(help="Tokens explained at a time.")]
Backend = Annotated[str, typer.Option(help="auto, or the one all operations shall take.")]
Picture = Annotated[str, typer.Argument(help="An image file.")]
Prompt = Annotated[str, typer.Argument(help="What to ask about it.")]
MorePictures = Annotated[
    list[str] | None,
    typer.Option("--image", help="A further image of the prompt, behind the first. May be given several times."),
]
Response = Annotated[str | None, typer.Option(help="Explain this answer instead of generating one.")]
Model = Annotated[
    str | None,
    typer.Option(
        help="A model's name on the Hub, or its folder. "
        "\\[default: the embedded model, which knows coloured shapes only]"
    ),
]
Revision = Annotated[str | None, typer.Option(help="The branch, tag or commit of the model on the Hub.")]
MaxNewTokens = Annotated[int | None, typer.Option(help="Stop generating after so many.")]
Against = Annotated[
    str | None,
    typer.Option(
        metavar="WORD|ID|runner-up",
        help="Explain why each token rather than this one; by methods of gradients and of hidden parts.",
    ),
]
By = Annotated[str, typer.Option(help="What the report shows as one: token or word.")]
Rank = Annotated[
    int | None,
    typer.Option(min=0, help="Which of several workers this is. \\[default: as torchrun, accelerate or Slurm say]"),
]
World = Annotated[int | None, typer.Option(min=1, help="How many workers there are.")]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Try again what failed; what is finished stays finished.")
]
AllowMissingWeights = Annotated[
    bool, typer.Option("--allow-missing-weights", help="Go on where the checkpoint lacks weights of the model.")
]

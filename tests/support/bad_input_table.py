"""Writes the table of bad input to BAD_INPUT.md: `make bad-input`.

Every row of it is a test, and a test holds the file to the rows.
"""

from __future__ import annotations

import bad_input
import test_bad_checkpoints
import test_bad_data
import test_bad_files
import test_bad_gradients
import test_bad_images
import test_bad_models
import test_bad_text
import test_bad_types
from paths import ROOT

PAGE = ROOT / "tests" / "BAD_INPUT.md"
SECTIONS = {
    "Images": test_bad_images.ROWS,
    "Prompts and answers": test_bad_text.ROWS,
    "Models, processors and numbers": test_bad_models.ROWS,
    "Types of models, pools and libraries": test_bad_types.ROWS,
    "Checkpoints, adapters, ids and inputs": test_bad_checkpoints.ROWS,
    "Training, hooks and switches of torch": test_bad_gradients.ROWS,
    "Data sets and evaluations": test_bad_data.ROWS,
    "Files": test_bad_files.ROWS,
}
HEAD = """# Bad input and what comes of it

Each row is tested, by the library and, where it can meet it, by the program (`tests/bad/test_bad_*.py`). *explained*:
the result is right, and how. *warned*: the result is right for what the model was given, and the warning is in its
diagnostics and on stderr. Else the error, of `dexar_fast.errors`, and what its message says. The program then prints
that message as one line, exits with status 2 and leaves every file as it was; `--debug` gives the traceback. A wrong
command line is one line and status 2 as well.

This page is written by `make bad-input`.
"""
REST = {
    "interrupted while writing, by Ctrl-C or SIGTERM": (
        "status 130 or 143",
        "every file is whole: the earlier one or the new",
    ),
    "file made to harm whoever loads it": (
        "`FileError`",
        "refused in bounded time and memory (`tests/bad/test_hostile_files.py`)",
    ),
    "prompt, answer or file name that holds markup": (
        "explained",
        "escaped: it cannot run script in the report (`tests/report/test_report.py`, `tests/report/test_pages.py`)",
    ),
}


def page() -> str:
    parts = [f"## {title}\n\n{bad_input.table(rows)}\n" for title, rows in SECTIONS.items()]
    rest = [f"| {name} | {outcome} | {how} |\n" for name, (outcome, how) in REST.items()]
    return "\n".join([HEAD, *parts]) + "".join(rest)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

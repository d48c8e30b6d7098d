"""What the doctor finds: a table on the terminal, or one JSON document."""

import json
from dataclasses import asdict, dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class Finding:
    """One thing looked at, what was found, and what follows from it where something does."""

    name: str
    value: str
    note: str = ""


def document(diagnosis: dict[str, list[Finding]]) -> str:
    """The groups as one JSON object: lists of {`name`, `value`, `note`}, texts all; a note may be empty."""
    return json.dumps({title: list(map(asdict, findings)) for title, findings in diagnosis.items()})


def render(diagnosis: dict[str, list[Finding]], console: Console) -> None:
    """Prints one table for each group of findings."""
    for title, findings in diagnosis.items():
        table = Table(title=title, title_justify="left", show_header=False, box=box.SIMPLE, pad_edge=False)
        for style in ("bold", "", "dim"):
            table.add_column(style=style, overflow="fold")
        for finding in findings:
            table.add_row(Text(finding.name), Text(finding.value), Text(finding.note))
        console.print(table)

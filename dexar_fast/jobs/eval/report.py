"""The files of an evaluation: figures as JSON, reports as Markdown and as one HTML page, cases as pictures."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment

from dexar_fast.explainer import Explainer
from dexar_fast.files import write_atomically
from dexar_fast.jobs.eval import tables
from dexar_fast.jobs.eval.figures import figures
from dexar_fast.jobs.eval.plan import Evaluation
from dexar_fast.jobs.eval.shown import Shown, shown

FIGURES, MARKDOWN, PAGE, CASES = "figures.json", "report.md", "report.html", "cases"
CASES_TITLE = "Best and worst cases of the first method: the maps of the answers"


def write(asked: Evaluation, records: Mapping[str, Any], out: Path, load: Callable[[str], Explainer]) -> dict[str, Any]:
    """Writes all files, and gives the figures. Raises FileError."""
    found = figures(asked, records)
    sections = [_section(asked, each, shown(asked, records, each["model"], load)) for each in found["models"]]
    (out / CASES).mkdir(exist_ok=True)
    for section in sections:
        for case in section["cases"]:
            write_atomically(out / CASES / case["file"], case["picture"])
    write_atomically(out / FIGURES, (json.dumps(found, indent=1, allow_nan=False) + "\n").encode())
    for name, text in ((MARKDOWN, _markdown(found["asked"], sections)), (PAGE, _html(found["asked"], sections))):
        write_atomically(out / name, text.encode("utf-8", "backslashreplace"))  # names of files may be no text
    return found


def failures(found: dict[str, Any]) -> list[str]:
    """A line for each broken item, and for what failed of methods and metrics."""
    lines = [f"{key}: {error}" for each in found["models"] for key, error in each["errors"].items()]
    for row in (row for each in found["models"] for row in each["failed"]):
        names = [", ".join(filter(None, row[kind])) for kind in ("methods", "metrics")]
        lines.append(f"{' by '.join(filter(None, names))}: {row['items']} items: {row['reason']}")
    return lines


def _section(asked: Evaluation, found: dict[str, Any], cases: Sequence[Shown]) -> dict[str, Any]:
    name = re.sub(r"[^\w.-]+", "-", found["model"]).strip("-.")
    every = [tables.summary(found), *tables.of_metrics(found, asked.methods[0]), tables.left_out(found)]
    return {
        "model": found["model"],
        "counted": f"{found['items']} items, {len(found['errors'])} of them broken.",
        "tables": [table for table in every if table.rows],
        "cases": [vars(case) | {"file": f"{name}-{case.place}.png"} for case in cases],
    }


def _markdown(asked: dict[str, Any], sections: list[dict[str, Any]]) -> str:
    lines = ["# Evaluation", "", *_asked_lines(asked)]
    for section in sections:
        lines += ["", f"## {section['model']}", "", section["counted"]]
        for table in section["tables"]:
            about = [_cell(table.about), ""] if table.about else []
            lines += ["", f"### {table.title}", "", *about, markdown(table)]
        lines += _case_lines(section["cases"])
    return "\n".join(lines) + "\n"


def markdown(table: tables.Table) -> str:
    """A table in Markdown."""
    rows = [table.heads, ["---"] * len(table.heads), *table.rows]
    return "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in rows)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def _plain(text: str) -> str:
    """One line, in which Markdown finds no markup."""
    return re.sub(r"([_`\[\]])", r"\\\1", _cell(text))


def _asked_lines(asked: dict[str, Any]) -> list[str]:
    return [f"- {name}: {_plain(_shown(value))}" for name, value in asked.items() if value not in (None, {}, [])]


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _case_lines(cases: list[dict[str, Any]]) -> list[str]:
    lines = ["", f"### {CASES_TITLE}", ""] if cases else []
    return lines + [
        f"![{case['place']}]({CASES}/{case['file']}) {case['place']}, {case['metric']} "
        f"{tables.number(case['score'])}, {_plain(case['item'])}: {_plain(case['question'])} {_plain(case['answer'])}\n"
        for case in cases
    ]


def _html(asked: dict[str, Any], sections: list[dict[str, Any]]) -> str:
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(number=tables.number, shown=_shown, base64=_base64)
    template = environment.from_string((files("dexar_fast.jobs.eval") / "report.html").read_text("utf-8"))
    return template.render(asked=asked, sections=sections, cases_title=CASES_TITLE)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()

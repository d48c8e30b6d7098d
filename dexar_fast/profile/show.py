"""A profile as tables on the terminal."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

MIB = 2**20


def show(report: dict[str, Any], console: Console) -> None:
    """Prints the stages, the rates and the memory of what `measure` returned."""
    about = report["about"]
    console.print(
        f"{about['model']} ({about['model_class']}, {about['dtype']}, {about['device']}): "
        f"prompt of {about['prompt_tokens']} tokens, {about['visual_tokens']} of them visual, "
        f"their places {about['places']}; {about['new_tokens']} tokens generated and explained",
        highlight=False,
    )
    console.print(_stages(report))
    console.print(_rates(report))
    if report["batches"]:
        console.print(_batches(report["batches"]))
    console.print(_memory(report["memory"]))


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    for n, column in enumerate(columns):
        table.add_column(column, justify="right" if n else "left")
    return table


def _stages(report: dict[str, Any]) -> Table:
    table = _table("stage", "ms", "share", "GFLOP/s", "GB/s", "of limit")
    for row in report["stages"]:
        rates = (f"{row[key] / 1e9:.1f}" for key in ("flops_per_second", "bytes_per_second"))
        table.add_row(row["name"], _ms(row["seconds"]), f"{row['share']:.1%}", *rates, f"{row['of_limit']:.0%}")
    limits = (f"{report['limits'][key] / 1e9:.1f}" for key in ("flops_per_second", "bytes_per_second"))
    table.add_section()
    table.add_row("in all", _ms(report["wall"]), f"{report['coverage']:.1%}", "", "", "")
    table.add_row("limit: matrix product, copy", "", "", *limits, "")
    return table


def _rates(report: dict[str, Any]) -> Table:
    seconds, rates, overhead = report["seconds"], report["tokens_per_second"], report["overhead"]
    table = _table("", "")
    table.show_header = False
    table.add_row("tokens generated per second", f"{rates['generated']:.1f}")
    table.add_row("tokens explained per second", f"{rates['explained']:.1f}")
    table.add_row("both, per second", f"{rates['both']:.1f}")
    table.add_row("time to first token", _milliseconds(seconds["first_token"]))
    table.add_row("time to first map", _milliseconds(seconds["first_map"]))
    table.add_row("plain generation", _milliseconds(seconds["generate"]["median"]))
    table.add_row("generating and explaining", _milliseconds(seconds["explain"]["median"]))
    spread = f"{overhead['median']:.3f} [{overhead['p20']:.3f}, {overhead['p80']:.3f}]"
    table.add_row("... over plain generation", spread)
    table.add_row("recording the stages takes", f"{report['instrumentation']['share']:.2%}")
    return table


def _batches(batches: list[dict[str, Any]]) -> Table:
    table = _table("tokens per second, in batches of", "generated", "explained", "both")
    for row in batches:
        table.add_row(str(row["size"]), *(f"{row[name]:.1f}" for name in ("generated", "explained", "both")))
    return table


def _memory(memory: dict[str, int | None]) -> Table:
    table = _table("peak memory", "MiB")
    for name, size in memory.items():
        table.add_row(name.replace("_", " "), "not measured here" if size is None else f"{size / MIB:.1f}")
    return table


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.2f}"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{_ms(seconds)} ms"

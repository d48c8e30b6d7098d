"""The tables of the pages below, written from files of results: `python -m bench tables`.

Between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->` a page holds what this makes of NAME.json; no figure there is
typed by hand.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import machine, results

MIB = 2**20
PAGES = [machine.ROOT / name for name in ("bench/README.md", "kernels/README.md", "dexar_fast/ADAPTERS.md")]
SIDES = ("ours", "theirs")  # of an adapter and its tool
Results = dict[str, Any]


def explain(found: Results) -> str:
    """Median ratio to the floor and its middle three fifths, by kind and layers against T."""
    rows = {}
    for group in found["groups"]:
        given = group["parameters"]
        row = rows.setdefault(f"{given['kind']} answer, {given['layers']} layers", {})
        row[given["tokens"]] = _ratio(group, "explain")
    return _by_size(rows)


def rivals(found: Results) -> str:
    """Median ratio of every way to the same maps to the floor of its group."""
    rows = {}
    for group in found["groups"]:
        given = group["parameters"]
        for job in group["jobs"]:
            name = f"{job}, over {group['floor']}" if job != group["floor"] else f"{job} (seconds)"
            cell = f"{group['jobs'][job]['median']:.3g} s" if job == group["floor"] else _ratio(group, job)
            rows.setdefault(name, {})[given["tokens"]] = cell
    return _by_size(rows)


def memory(found: Results) -> str:
    """One sentence."""
    grown = found["conclusions"]
    short, long = (group["parameters"]["tokens"] for group in found["groups"])
    return (
        f"Peak memory from T = {short:,} to T = {long:,} grows by {grown['kept_grows_by'] / MIB:.0f} MiB of KV cache "
        f"and results, and by {grown['beyond'] / MIB:.0f} MiB of everything else."
    )


def scaling(found: Results) -> str:
    """The fitted exponents and their 95 % intervals."""
    lines = ["| varied | time, explaining | time, plain forward | peak memory |", "|---|---|---|---|"]
    for axis, growths in found["conclusions"].items():
        cells = [_exponent(growths.get(name)) for name in ("time", "forward", "memory")]
        sizes = growths["time"]
        lines.append(f"| {axis}, {sizes['first']:,.0f} to {sizes['last']:,.0f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cache(found: Results) -> str:
    """Steps and appends against the cached tokens; what a second question saves; the manager's calls."""
    rows: dict[str, dict[int, str]] = {}
    for group in found["groups"]:
        given = group["parameters"]
        if given["kind"] == "decode step":
            for job in ("pool", "dynamic"):
                rows.setdefault(f"decode step, {job} over static", {})[given["cached"]] = _ratio(group, job)
        if given["kind"] == "append":
            for job in ("pool", "static", "dynamic"):
                rows.setdefault(f"append alone, {job}", {})[given["cached"]] = _microseconds(group, job)
    (calls,) = (group for group in found["groups"] if group["parameters"]["kind"] == "manager")
    saved, low, high = (f"{100 * found['conclusions']['saved'][key]:.0f}" for key in ("median", "p20", "p80"))
    return "\n".join(
        [
            _by_size(rows, "cached tokens: {:,}"),
            "",
            f"A second question saves {saved} % [{low}, {high}] of the time of a plain forward of what it shares.",
            f"One call of the manager: {', '.join(f'{job} {_microseconds(calls, job)}' for job in calls['jobs'])}.",
        ]
    )


def long(found: Results) -> str:
    """Time and memory along a long answer, and what a killed run left of it."""
    *parts, killed, again = found["groups"]
    lines = [
        "| | generate | stream | ratio | memory beyond the KV cache since the first piece |",
        "|---|---|---|---|---|",
    ]
    for part in parts:
        times = [f"{1e3 * part['jobs'][job]['median']:.2f} ms" for job in ("generate", "stream")]
        beyond = f"{part['notes']['beyond_since'] / MIB:.0f} MiB"
        lines.append(f"| {part['name']} | {' | '.join(times)} | {_ratio(part, 'stream')} | {beyond} |")
    left, seconds = killed["notes"], killed["jobs"]["read"]["median"]
    left_over = (
        f"Killed with SIGKILL after {left['handed_over']:,} tokens had been handed over, a run left "
        f"{left['read_again']:,} to read, in {seconds:.2g} s. Explaining the whole answer again as a given one took "
        f"{1e3 * again['jobs']['explain']['median']:.2f} ms a token and differed by "
        f"{again['notes']['difference_to_stream']:.0e} of the largest value."
    )
    return "\n".join([*lines, "", left_over])


def rows(found: Results) -> str:
    """Times over those of the rows, and peaks, against the tokens."""
    times: dict[str, dict[int, str]] = {}
    peaks: dict[str, dict[int, str]] = {}
    for group in found["groups"]:
        tokens = group["parameters"]["tokens"]
        for name in group["ratios"]:
            times.setdefault(name.replace("/", ", over "), {})[tokens] = _ratio(group, name.partition("/")[0])
        if group["parameters"]["kind"] == "memory":
            for job, taken in group["jobs"].items():
                peaks.setdefault(job, {})[tokens] = f"{taken['median'] / MIB:.0f} MiB"
            beyond = group["notes"]["beyond_plain_and_result"]
            peaks.setdefault("rows, beyond plain and the result", {})[tokens] = f"{beyond / MIB:.0f} MiB"
    return _by_size(times | peaks, "S = {:,}")


def ratios(found: Results) -> str:
    """Every job over its floor."""
    lines = ["| | job | over | ratio |", "|---|---|---|---|"]
    for group in found["groups"]:
        for job in (name.partition("/")[0] for name in group["ratios"]):
            lines.append(f"| {group['name']} | {job} | {group['floor']} | {_ratio(group, job)} |")
    return "\n".join(lines)


def adapters(found: Results) -> str:
    """Ours beside theirs, and the ratio within a round; what is not installed by name."""
    lines = ["| tool | ours | the tool's own | ratio |", "|---|---|---|---|"]
    for group in found["groups"]:
        missing = ("", "", group["notes"].get("missing"))
        cells = missing if missing[-1] else (*(_time(group, job) for job in SIDES), _ratio(group, "ours"))
        lines.append(f"| {group['name']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def peaks(found: Results) -> str:
    """What the GPU held beyond weights, KV cache and results."""
    lines = ["| | MiB |", "|---|---|"]
    lines += [f"| {group['name']} | {group['jobs']['beyond']['median'] / MIB:.0f} |" for group in found["groups"]]
    return "\n".join(lines)


TABLES: dict[str, Callable[[Results], str]] = {
    "start": ratios,
    "serve": ratios,
    "explain": explain,
    "rivals": rivals,
    "memory": memory,
    "cache": cache,
    "scaling": scaling,
    "long": long,
    "rows": rows,
    "batch": ratios,
    "run": ratios,
    "curves": ratios,
    "micro": ratios,
    "adapters": adapters,
    "gpu-scoring": ratios,
    "gpu-explain": ratios,
    "gpu-generate": ratios,
    "gpu-rivals": ratios,
    "gpu-memory": peaks,
}


def section(name: str, found: Results) -> str:
    """A table and under it where its figures come from."""
    host = f"{found['machine']['cpu']}, {found['machine']['cores']} cores"
    place = found["machine"]["gpu"] if name.startswith("gpu-") else host
    versions = found["versions"]
    warning = " **The machine was not quiet.**" if found["loaded"] else ""
    source = (
        f"{place}, torch {versions['torch']}, transformers {versions['transformers']}; "
        f"commit {machine.short(found['commit'])}, {found['date']}; `{found['command']}`.{warning}"
    )
    return f"{TABLES[name](found)}\n\n{source}"


def filled(page: str, folder: Path) -> tuple[str, list[str]]:
    """A page with every table replaced of which `folder` holds the results, and the names of the others."""
    missing = []

    def replaced(match: re.Match[str]) -> str:
        name = match[1]
        try:
            body = section(name, results.read(_file(name, folder)))
        except (OSError, ValueError):
            missing.append(name)
            return match[0]
        return f"<!-- bench:{name} -->\n{body}\n<!-- /bench:{name} -->"

    return re.sub(r"<!-- bench:(\S+) -->\n.*?<!-- /bench:\1 -->", replaced, page, flags=re.DOTALL), missing


def _file(name: str, folder: Path) -> Path:
    """The results in this folder; those of a GPU lie in the folder of another machine, perhaps."""
    own = folder / f"{name}.json"
    others = sorted(folder.parent.glob(f"*/{name}.json")) if name.startswith("gpu-") else []
    return others[0] if others and not own.exists() else own


def main(arguments: Sequence[str]) -> int:
    """Rewrites the pages; 2 where some table has no results."""
    parser = argparse.ArgumentParser("python -m bench tables", description=__doc__)
    parser.add_argument("--results", type=Path, default=results.FOLDER / machine.slug())
    parser.add_argument("--pages", type=Path, nargs="+", default=PAGES)
    given = parser.parse_args(arguments)
    missing: set[str] = set()
    for page in given.pages:
        text, without = filled(page.read_text(), given.results)
        results.write_text(text, page)
        missing.update(without)
    if missing:
        print(f"{given.results} holds no results of {', '.join(sorted(missing))}: those tables are left as they were")
    return 2 if missing else 0


def _by_size(rows: dict[str, dict[int, str]], heading: str = "T = {}") -> str:
    sizes = sorted({size for cells in rows.values() for size in cells})
    lines = [f"| | {' | '.join(heading.format(size) for size in sizes)} |", "|---" * (len(sizes) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(cells.get(size, '') for size in sizes)} |" for name, cells in rows.items()]
    return "\n".join(lines)


def _time(group: dict[str, Any], job: str) -> str:
    seconds = group["jobs"][job]["median"]
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def _microseconds(group: dict[str, Any], job: str) -> str:
    return f"{1e6 * group['jobs'][job]['median']:.3g} µs"


def _ratio(group: dict[str, Any], job: str) -> str:
    found = group["ratios"][f"{job}/{group['floor']}"]
    digits = 2 if found["median"] < 10 else 0
    if found["p20"] == found["p80"]:
        return f"{found['median']:.{digits}f}"
    return f"{found['median']:.{digits}f} [{found['p20']:.{digits}f}, {found['p80']:.{digits}f}]"


def _exponent(growth: dict[str, float] | None) -> str:
    return "" if growth is None else f"{growth['exponent']:.2f} [{growth['low']:.2f}, {growth['high']:.2f}]"

"""An evaluation killed at random times ends in the same files, to the byte, as one that never was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from killed_evaluations import __file__ as SCRIPT
from killed_evaluations import asked

from dexar_fast import Explainer
from dexar_fast.jobs.eval import report
from dexar_fast.jobs.eval.running import LEDGER, finished, run
from dexar_fast.jobs.share import ALL, Share

WHAT = ("shapes:count=4,asked=one", "dex-ar,attention", "epg,iou,word-epg,token-ratio,occlusion-rank")


def written(out: Path, *shares: Share, what: tuple[str, str, str] = WHAT) -> dict[str, bytes]:
    evaluation, explainer = asked(*what), Explainer.from_pretrained()
    for share in (*shares, ALL):
        for _ in run(evaluation, out, lambda model: explainer, share=share):
            pass
    report.write(evaluation, finished(evaluation, out), out, lambda model: explainer)
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_the_files_are_the_same_to_the_byte(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPT, str(tmp_path / "killed"), *WHAT, "3"]
    told = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    done = [int(line) for line in told.stdout.split()]
    assert len(done) == 3 and done[0] == 0 and done == sorted(done), told.stderr
    with open(tmp_path / "killed" / LEDGER, "ab") as file:
        file.write(b'{"key": "cut off')
    found = written(tmp_path / "killed")
    assert found == written(tmp_path / "whole")
    assert found.keys() > {LEDGER, report.FIGURES, report.MARKDOWN, report.PAGE, "cases/embedded-best-1.png"}


def test_workers_end_in_the_same_reports(tmp_path: Path) -> None:
    """All of several, or one of them alone: one process does what they left."""
    what = ("shapes:count=2", "dex-ar", "epg,token-ratio")
    whole = written(tmp_path / "whole", what=what)
    reports = {name: data for name, data in whole.items() if not name.endswith(".jsonl")}
    for name, shares in (("two", [Share(1, 2), Share(0, 2)]), ("some", [Share(2, 3)])):
        found = written(tmp_path / name, *shares, what=what)
        assert reports.items() <= found.items()
        ledgers = [data for path, data in found.items() if path.startswith("items")]
        keys = [json.loads(line)["key"] for data in ledgers for line in data.splitlines()[1:]]
        assert sorted(keys) == sorted(finished(asked(*what), tmp_path / "whole"))

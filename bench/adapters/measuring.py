"""Other tools and their adapters in turn: how long each takes for the same picture, question and answer.

The model is the embedded one. A ratio is ours over theirs within a round. What a tool does not offer (a map of each
token, say) is beside the nearest thing that it does; each row's `about` says what differs. Tools that are not installed
are named as such.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from bench.adapters import captum, eagle, grad_cam, inseq, pipelines, quantus, tam, torchcam
from bench.adapters.tool import Common, Row, Tool
from bench.gates import same_arrays
from bench.groups import Benchmark, Group, timed
from bench.options import Options
from bench.timing import Job
from dexar_fast import Explainer
from dexar_fast.cli.explain import SAMPLE_IMAGE
from dexar_fast.vision.images import load_images

TOOLS = (captum.TOOL, eagle.TOOL, grad_cam.TOOL, inseq.TOOL, quantus.TOOL, tam.TOOL, torchcam.TOOL, pipelines.TOOL)
SAMPLE = ("Describe the image.", " A red triangle, a yellow circle and a blue square.")
ROUNDS = 9


@cache
def common() -> Common:
    return Common(Explainer.from_pretrained(), load_images(str(SAMPLE_IMAGE))[0], *SAMPLE)


def groups(options: Options) -> Iterator[Group]:
    for tool in TOOLS:
        if tool.version is None:
            yield Group(tool.name, {"tool": tool.name}, {}, {}, notes={"missing": "not installed"})
            continue
        for row in tool.rows(common()):
            yield measured(tool, row, options.rounds_of(ROUNDS))


def measured(tool: Tool, row: Row, rounds: int) -> Group:
    """One row, both ways in turn."""
    fewer = None if row.rounds is None else min(row.rounds, rounds)
    jobs = [Job("theirs", row.about, row.theirs, fewer), Job("ours", row.about, row.ours, fewer)]
    parameters = {"tool": tool.name, "version": tool.version, "row": row.name}
    title = f"{tool.name} {tool.version or '(re-written)'}: {row.name}"
    return timed(title, parameters, jobs, rounds=rounds, floor="theirs")


BENCHMARK = Benchmark("adapters", "adapters beside the tools that they stand in for", same_arrays, groups)

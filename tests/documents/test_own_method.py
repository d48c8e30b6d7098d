"""METHOD.md's method of a user's own, as a package that is installed: it is found by name and explains."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import torch
from paths import ROOT

from dexar_fast import Explainer
from dexar_fast.methods import registry
from dexar_fast.report import plain_words

IMAGE, PROMPT, ANSWER = "dexar_fast/assets/sample.png", "Describe the image.", " A red circle."
SNIPPETS = dict(re.findall(r"^```(\w+)\n((?:.*\n)*?)```$", (ROOT / "dexar_fast/METHOD.md").read_text("utf-8"), re.M))
MOST_LINES = 30


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file, and what pip would write beside it of its pyproject.toml."""
    (group, named), *others = tomllib.loads(SNIPPETS["toml"])["project"]["entry-points"].items()
    lines = [f"[{group}]", *(f"{name} = {value}" for name, value in named.items())]
    about = tmp_path / "my_alike-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my_alike\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("\n".join(lines))
    (tmp_path / "my_alike.py").write_text(SNIPPETS["python"], "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert not others and group == registry.ENTRY_POINTS


def test_it_explains_by_its_name_and_knobs(installed: None) -> None:
    embedded = Explainer.from_pretrained()
    assert "alike" in registry.names()
    signed = embedded.with_method("alike:signed=true").explain(IMAGE, PROMPT, ANSWER)
    plain = embedded.with_method("alike").explain(IMAGE, PROMPT, ANSWER)
    torch.testing.assert_close(plain.token_maps, signed.token_maps.relu())
    assert signed.metadata["settings"] == {"method": "alike", "signed": True}
    assert plain_words.numbers(signed)[0].startswith("Map value of a patch: the cosine")

    model, inputs = (
        embedded.model.double(),
        embedded.processor(images=signed.images[0], text=signed.metadata["prompt"], return_tensors="pt"),
    )
    ids = torch.cat([inputs["input_ids"], signed.token_ids[None, :-1]], 1)
    with torch.no_grad():
        run = model(input_ids=ids, pixel_values=inputs["pixel_values"].double(), output_hidden_states=True)
    states = run.hidden_states[-1][0]
    visual = (ids[0] == model.config.image_token_id).nonzero()[:, 0]
    for t in range(len(signed)):
        expected = torch.cosine_similarity(states[inputs["input_ids"].shape[1] - 1 + t, None], states[visual])
        torch.testing.assert_close(signed.token_maps[t].double(), expected, rtol=0, atol=1e-5)


def test_it_is_thirty_lines() -> None:
    assert len([line for line in SNIPPETS["python"].splitlines() if line]) <= MOST_LINES
    assert set(SNIPPETS) == {"python", "toml"}

"""What the doctor says of a model."""

import json

import pytest
import small_llava
from command_line import run

from dexar_fast import Explainer
from dexar_fast.cli.doctor import examined
from dexar_fast.cli.doctor.examined import CONFIRMED, examine
from dexar_fast.cli.explain import SAMPLE_IMAGE
from dexar_fast.errors import InternalError, ModelError
from dexar_fast.generation.places.kept import Found
from dexar_fast.loading.names import EMBEDDED
from dexar_fast.vision.grid import Grid


def test_a_model_is_examined_by_a_short_answer() -> None:
    found = {finding.name: finding for finding in examine(None)}
    assert (found["model"].value, found["model"].note) == ("LlavaForConditionalGeneration", "llava, torch.float32")
    assert found["explained"].value == "yes" and "A red triangle" in found["explained"].note
    assert (found["maps"].value, found["maps"].note) == ("of 4 layers, 4 heads", "LlamaAttention")
    assert (found["visual tokens"].value, found["visual tokens"].note) == ("144", "12 x 12")
    assert (found["places"].value, found["places"].note) == ("declared", CONFIRMED)
    assert found["runs"].value == "over its own KV cache"
    assert found["gradients"].value == "by formula"
    assert found["logit lens"].note == "LlamaRMSNorm, Linear"


def test_a_model_that_is_refused_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ModelError("it reads proteins")

    monkeypatch.setattr(Explainer, "explain", refuse)
    _, explained = examine(None)
    assert (explained.value, explained.note) == ("no", "it reads proteins")


def test_a_fault_of_ours_is_not_told_as_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise InternalError("a fault")

    monkeypatch.setattr(Explainer, "explain", fail)
    with pytest.raises(InternalError):
        examine(None)


def test_the_command_takes_a_folder() -> None:
    found = json.loads(run("doctor", "--json", "--model", str(EMBEDDED)).stdout)["model"]
    assert [finding["value"] for finding in found][:2] == ["LlavaForConditionalGeneration", "yes"]


def test_what_is_no_model_is_refused_in_one_line() -> None:
    result = run("doctor", "--model", str(SAMPLE_IMAGE.parent))
    assert result.exit_code == 2
    assert "cannot load" in result.stderr


def test_places_that_cannot_be_measured_are_told_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("no such pictures")

    monkeypatch.setattr(examined, "measured", refuse)
    found = {finding.name: finding for finding in examine(None)}
    assert found["places"].value == "declared" and "cannot be measured: no such pictures" in found["places"].note


def test_places_that_lie_elsewhere_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examined, "measured", lambda *_: Found("measured", (Grid(0, 0, 2, 2),)))
    assert {finding.name: finding for finding in examine(None)}["places"].note == examined.MOVED


def test_keys_that_stand_elsewhere_have_places_too() -> None:
    explained = Explainer.from_pretrained().explain(small_llava.noise(), "What is it?", " red")
    value, note = examined._of_keys(explained)
    assert value == explained.metadata["places"] == "declared" and "first call that reads them" in note

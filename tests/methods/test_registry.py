"""Methods by name, with knobs, from other packages, and as objects."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any, ClassVar

import pytest
import torch

from dexar_fast import Explainer, InputError, LibraryError, ModelError, methods
from dexar_fast.explanation import Explanation
from dexar_fast.methods import registry
from dexar_fast.methods.base import Asked, Maps
from dexar_fast.methods.dex_ar import DexAr
from dexar_fast.settings import Settings

PROMPT = "Describe the image."
IMAGE = "dexar_fast/assets/sample.png"


@dataclass(frozen=True)
class Ramp:
    """A user's own method: each token's map rises by its place in the answer."""

    name: ClassVar[str] = "ramp"
    step: float = 1.0
    weights: tuple[float, ...] | None = None

    def maps(self, asked: Asked) -> Maps:
        tokens = torch.arange(len(asked.targets), dtype=torch.float32)
        maps = tokens[:, None] * self.step + torch.arange(len(asked.visual))
        weights = None if self.weights is None else torch.tensor(self.weights)
        return Maps(maps, maps.sum(0), asked.grids, weights)


@pytest.fixture(scope="module")
def embedded() -> Explainer:
    return Explainer.from_pretrained()


def asked_by(embedded: Explainer, **options: Any) -> Explanation:
    return Explainer(embedded.model, embedded.processor, **options).explain(IMAGE, PROMPT, " A red circle.")


def plugged(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    found = EntryPoints([EntryPoint("ramp", value, registry.ENTRY_POINTS)])
    monkeypatch.setattr(registry, "entry_points", lambda **wanted: found.select(**wanted))


def test_an_object_explains_and_its_knobs_are_in_the_metadata(embedded: Explainer) -> None:
    found = asked_by(embedded, method=Ramp(step=2.0))
    expected = 2.0 * torch.arange(len(found), dtype=torch.float32)[:, None] + torch.arange(144)
    assert torch.equal(found.token_maps, expected)
    assert torch.equal(found.sequence_map, expected.sum(0))
    assert found.metadata["settings"] == {"method": "ramp", "step": 2.0, "weights": None}
    assert not found.weighted and found.head_weights.shape == (len(found), 0, 0)


def test_weights_of_a_method_are_those_of_the_tokens(embedded: Explainer) -> None:
    found = asked_by(embedded, method=Ramp(weights=(0.0, 1.0, 2.0, 3.0)))
    assert found.weighted and found.token_weights.tolist() == [0, 1, 2, 3]


def test_a_method_that_another_package_plugs_in(embedded: Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    plugged(monkeypatch, f"{__name__}:Ramp")
    monkeypatch.setattr(EntryPoint, "load", lambda self: Ramp)
    assert "ramp" in registry.names()
    assert registry.of("ramp:step=0.5") == Ramp(step=0.5)
    assert torch.equal(asked_by(embedded, method="ramp").token_maps, asked_by(embedded, method=Ramp()).token_maps)


def test_a_plugged_method_that_does_not_import_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    plugged(monkeypatch, "no_such_package:Ramp")
    with pytest.raises(LibraryError, match=r"'ramp' .* cannot be imported: No module named 'no_such_package'"):
        registry.of("ramp")


def test_every_name_is_that_of_a_public_class() -> None:
    for name in registry.names():
        found = registry.of(name)
        assert found.name == name
        assert getattr(methods, type(found).__name__) is type(found)


def test_dex_ar_by_name_by_object_and_by_knobs_is_one(embedded: Explainer) -> None:
    plain = asked_by(embedded, head_score="mean")
    for options in ({"method": DexAr(head_score="mean")}, {"method": "dex-ar:head_score=mean"}):
        assert torch.equal(asked_by(embedded, **options).token_maps, plain.token_maps)
    assert plain.metadata["settings"]["method"] == "dex-ar"
    assert registry.of("dex-ar:layers=[0,1],mode=official") == DexAr(layers=[0, 1], mode="official")  # type: ignore[arg-type]
    assert registry.with_knobs("dex-ar", Settings(mode="official")) == DexAr(mode="official")


def test_without_the_head_filter_every_head_weighs_1(embedded: Explainer) -> None:
    plain, ablated = asked_by(embedded), asked_by(embedded, method=DexAr(head_filter=False))
    assert torch.equal(ablated.token_maps, plain.unfiltered_token_maps)
    assert torch.equal(ablated.head_weights, torch.ones_like(plain.head_weights))
    assert torch.equal(ablated.token_weights, plain.token_weights)


def test_without_the_token_filter_every_token_weighs_1(embedded: Explainer) -> None:
    plain, ablated = asked_by(embedded), asked_by(embedded, method=DexAr(token_filter=False))
    assert torch.equal(ablated.token_maps, plain.token_maps)
    torch.testing.assert_close(ablated.sequence_map, plain.token_maps.sum(0))


def test_a_knob_may_be_a_list_of_lists() -> None:
    found = registry.of("eagle:labels=[[0,1],[2,3]],regions=9,tokens=[0,1],fill=mean")
    assert isinstance(found, methods.Eagle)
    assert (found.labels, found.regions, found.tokens, found.fill) == ([[0, 1], [2, 3]], 9, [0, 1], "mean")


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("tamm", "'tamm' is none of .*did you mean 'tam'"),
        ("dex-ar:colour=red", "'colour' is no knob of 'dex-ar': it has mode, layers"),
        ("dex-ar:mode", "is not NAME:KNOB=VALUE"),
        ("dex-ar:mode=fast", "mode 'fast' is none of"),
        (3, "an object with a `name` and `maps`, not 3"),
        (Ramp, "an object with a `name` and `maps`, not <class"),
    ],
)
def test_a_method_that_does_not_exist_is_refused(embedded: Explainer, method: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Explainer(embedded.model, embedded.processor, method=method)


def test_knobs_of_dex_ar_beside_another_method_are_refused(embedded: Explainer) -> None:
    with pytest.raises(InputError, match="are knobs of 'dex-ar': Ramp"):
        Explainer(embedded.model, embedded.processor, method=Ramp(), layers=[0])


@pytest.mark.parametrize(
    ("maps", "sequence", "message"),
    [
        (torch.full((4, 144), torch.nan), torch.zeros(144), "token_maps that hold NaN"),
        (torch.zeros(4, 144), torch.zeros(143), r"token_maps \[4, 144\] and sequence_map \[143\] for 4 tokens"),
        (torch.zeros(3, 144), torch.zeros(144), r"token_maps \[3, 144\]"),
        ([[0.0]], torch.zeros(144), "are no tensor"),
    ],
)
def test_maps_that_no_result_can_hold_are_refused(
    embedded: Explainer, maps: Any, sequence: torch.Tensor, message: str
) -> None:
    class Broken:
        name = "broken"

        def maps(self, asked: Asked) -> Maps:
            return Maps(maps, sequence, asked.grids)

    with pytest.raises(ModelError, match=message):
        asked_by(embedded, method=Broken())


def test_a_stream_or_a_folder_needs_a_method_that_goes_along(embedded: Explainer, tmp_path: Any) -> None:
    other = Explainer(embedded.model, embedded.processor, method=Ramp())
    with pytest.raises(InputError, match="'ramp' explains an answer as a whole"):
        other.stream(IMAGE, PROMPT)
    with pytest.raises(InputError, match="'ramp' explains an answer as a whole"):
        other.explain(IMAGE, PROMPT, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Particular:
    """Refuses the first decoder that it is shown."""

    name = "particular"

    def __init__(self) -> None:
        self.first: Any = None

    def maps(self, asked: Asked) -> Maps:
        self.first = self.first or asked.decoder
        if asked.decoder is self.first:
            raise ModelError("not the decoder that I know")
        return Ramp().maps(asked)


def test_a_model_that_may_have_been_changed_is_looked_at_again(embedded: Explainer) -> None:
    method = Particular()
    other = Explainer(embedded.model, embedded.processor, method=method)
    with pytest.raises(ModelError, match="not the decoder"):
        other.explain(IMAGE, PROMPT, " A red circle.")  # found in this very call
    found = other.explain(IMAGE, PROMPT, " A red circle.")
    assert torch.equal(found.token_maps, asked_by(embedded, method=Ramp()).token_maps)
    assert other.decoder is not method.first


def test_comparing_writes_the_answer_once(embedded: Explainer) -> None:
    found = embedded.compare(IMAGE, PROMPT, ["dex-ar", Ramp(), Ramp(step=3.0)], max_new_tokens=5)
    assert found.names == ["dex-ar", "ramp (2)", "ramp (3)"]
    assert len({each.text for each in found}) == 1 and len(found[0]) == 5
    assert torch.equal(found[0].token_maps, embedded.explain(IMAGE, PROMPT, max_new_tokens=5).token_maps)
    assert torch.equal(found[2].token_maps - found[1].token_maps, 2.0 * torch.arange(5.0)[:, None].expand(5, 144))


def test_a_comparison_is_a_page(embedded: Explainer, tmp_path: Any) -> None:
    embedded.compare(IMAGE, PROMPT, ["dex-ar", Ramp()], " A red circle.").to_html(tmp_path / "page.html")
    assert "ramp" in (tmp_path / "page.html").read_text()
    with pytest.raises(InputError, match="two explanations or more"):
        embedded.compare(IMAGE, PROMPT, ["dex-ar"], " A red circle.").to_html(tmp_path / "one.html")
    with pytest.raises(InputError, match="methods must be a list"):
        embedded.compare(IMAGE, PROMPT, "dex-ar", " A red circle.")


def test_other_methods_share_the_model_itself(embedded: Explainer) -> None:
    other = embedded.with_method("tam")
    assert other.model is embedded.model and other.processor is embedded.processor
    assert other.method == methods.Tam() and embedded.method == DexAr()


def test_methods_of_one_model_in_several_threads(embedded: Explainer) -> None:
    names = ["dex-ar", "tam", "attention", "attention-gradient"]
    own = embedded.model.config.get_text_config()._attn_implementation
    expected = [embedded.with_method(name).explain(IMAGE, PROMPT, " A red circle.") for name in names]
    with ThreadPoolExecutor(len(names)) as pool:
        found = pool.map(lambda name: embedded.with_method(name).explain(IMAGE, PROMPT, " A red circle."), names)
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one.token_maps, other.token_maps)
    assert embedded.model.config.get_text_config()._attn_implementation == own


def test_a_comparison_while_a_stream_is_open(embedded: Explainer) -> None:
    with embedded.stream(IMAGE, PROMPT, chunk_size=2) as pieces:
        next(pieces)
        assert len(embedded.compare(IMAGE, PROMPT, ["dex-ar", "tam"], " A red circle.")) == 2


def test_comparing_reads_the_prompt_as_its_methods_need_it(embedded: Explainer) -> None:
    found = embedded.compare(IMAGE, PROMPT, ["tam", "dex-ar:text_set=content"], " A red circle.")
    assert torch.equal(found[1].token_maps, asked_by(embedded, text_set="content").token_maps)
    with pytest.raises(InputError, match="methods is empty"):
        embedded.compare(IMAGE, PROMPT, [])


class Failing:
    name = "failing"

    def maps(self, asked: Asked) -> Any:
        raise KeyError("no such layer")


def test_what_a_users_method_raises_names_it(embedded: Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="the method 'failing' failed: KeyError: 'no such layer'"):
        asked_by(embedded, method=Failing())
    monkeypatch.setattr(Failing, "maps", lambda self, asked: None)
    with pytest.raises(ModelError, match="'failing' gave a NoneType: Maps are due"):
        asked_by(embedded, method=Failing())


def test_a_comparison_with_its_own_method_keeps_its_knobs(embedded: Explainer) -> None:
    mean = Explainer(embedded.model, embedded.processor, head_score="mean")
    found = mean.compare(IMAGE, PROMPT, ["dex-ar", "tam"], " A red circle.")
    assert found[0].metadata["settings"]["head_score"] == "mean"
    assert torch.equal(found[0].token_maps, asked_by(embedded, head_score="mean").token_maps)

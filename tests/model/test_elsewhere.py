"""Types that read their image elsewhere than among the prompt's ids are explained as autograd has it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import calls_oracle
import pytest
import torch
import transformers
from PIL import Image
from torch import nn
from types_agree import agrees
from types_beyond import BEYOND, Beyond

from dexar_fast import Explainer, Explanation, KVPool
from dexar_fast.errors import InputError, ModelError
from dexar_fast.model.elsewhere import begun, written

TARGETS = torch.tensor([20, 31, 44])
BOUND = 1e-11  # of the largest of each array; float64


@pytest.fixture(autouse=True)
def one_thread(threads: Callable[[int], None]) -> None:
    threads(1)


@pytest.mark.parametrize("name", BEYOND)
def test_it_is_explained_as_autograd_has_it(name: str) -> None:
    beyond = BEYOND[name]()
    explainer, given = Explainer(beyond.model), {key: each.clone() for key, each in beyond.inputs.items()}
    expected = calls_oracle.expected(beyond, TARGETS)
    for _ in range(2):  # the second time the decoder is known
        agrees(explainer.explain_inputs(beyond.inputs, target_ids=TARGETS), expected, BOUND)
    answer = explainer.explain_inputs(beyond.inputs, max_new_tokens=2, min_new_tokens=2)
    expected = calls_oracle.expected(beyond, answer.token_ids)
    agrees(answer, expected, BOUND)
    with explainer.stream_inputs(beyond.inputs, chunk_size=1, max_new_tokens=2, min_new_tokens=2) as pieces:
        assert [int(piece.token_ids[0]) for piece in pieces] == answer.token_ids.tolist()
        agrees(pieces.explanation(), expected, BOUND)
    assert all(torch.equal(each, beyond.inputs[key]) for key, each in given.items())  # BLIP writes into its own


def explained(name: str, **knobs: Any) -> tuple[Explanation, dict[str, torch.Tensor]]:
    beyond = BEYOND[name]()
    found = Explainer(beyond.model, **knobs).explain_inputs(beyond.inputs, target_ids=TARGETS)
    return found, calls_oracle.expected(beyond, TARGETS)


@pytest.mark.parametrize("name", ["blip", "mllama", "florence2", "t5gemma2"])
def test_chunks_of_one_token_and_some_of_the_calls(name: str) -> None:
    calls = calls_oracle.expected(BEYOND[name](), TARGETS)["visual_scores"].shape[1]
    found, expected = explained(name, chunk_size=1, layers=[calls - 1, 0])
    for array in ("visual_scores", "text_scores"):
        torch.testing.assert_close(getattr(found, array).double(), expected[array][:, [0, -1]], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["florence2", "mllama", "idefics"])
def test_calls_that_read_no_image_have_a_map_of_zeros(name: str) -> None:
    scores = calls_oracle.expected(BEYOND[name](), TARGETS)["visual_scores"]
    of_text = int(scores.amax((0, 2)).argmin())
    found, expected = explained(name, layers=[of_text])
    torch.testing.assert_close(found.text_scores, expected["text_scores"][:, [of_text]], rtol=0, atol=1e-10)
    assert found.token_maps.shape == expected["token_maps"].shape and not found.token_maps.any()
    assert not found.token_weights.any() and not found.head_weights.any()


@pytest.mark.parametrize("name", ["blip", "idefics", "pix2struct"])
def test_a_call_reads_the_image_or_the_text(name: str) -> None:
    """So every head that reads the image keeps its whole weight (definition A)."""
    found, _ = explained(name)
    of_image = found.visual_scores.amax((0, 2)) > 0
    assert of_image.any() and not of_image.all()
    assert not found.text_scores[:, of_image].any() and not found.visual_scores[:, ~of_image].any()
    assert torch.equal(found.head_weights, found.visual_scores)


@pytest.mark.parametrize("name", ["florence2", "t5gemma2", "git", "mllama", "udop"])
@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_it_runs_in_float32_on_each_backend(name: str, backend: str) -> None:
    beyond = BEYOND[name]()
    expected = calls_oracle.expected(beyond, TARGETS)
    narrow = {key: each.float() if each.is_floating_point() else each for key, each in beyond.inputs.items()}
    agrees(Explainer(beyond.model.float(), backend=backend).explain_inputs(narrow, target_ids=TARGETS), expected, 1e-3)


@pytest.mark.parametrize("name", ["florence2", "blip-2", "mllama"])
def test_the_text_can_be_the_prompt_or_the_answer_alone(name: str) -> None:
    """Every score of all text is the larger of both."""
    scores = [explained(name, text_set=some)[0].text_scores for some in ("all", "prompt", "generated")]
    torch.testing.assert_close(scores[0], torch.maximum(scores[1], scores[2]), rtol=1e-12, atol=0)
    assert scores[2].any() and not scores[2][0].any()  # before the first token nothing is written


@pytest.mark.parametrize("name", ["mllama", "blip-2/t5", "blip", "vision-encoder-decoder/bert"])
def test_the_best_of_several_beams_is_explained(name: str) -> None:
    beyond = BEYOND[name]()
    found = Explainer(beyond.model).explain_inputs(beyond.inputs, max_new_tokens=3, min_new_tokens=3, num_beams=2)
    agrees(found, calls_oracle.expected(beyond, found.token_ids), BOUND)


def test_a_result_is_written_and_read(tmp_path: Path) -> None:
    beyond = BEYOND["florence2"]()
    found = Explainer(beyond.model).explain_inputs(beyond.inputs, target_ids=TARGETS, out=tmp_path / "result")
    agrees(Explanation.load(tmp_path / "result"), calls_oracle.expected(beyond, TARGETS), BOUND)
    assert found.visual_positions.tolist() == list(range(17)) and not found.grids
    assert "elsewhere" in found.diagnostics["warnings"][-1]


def test_winners_among_the_text_are_numbered_behind_the_keys_beside_the_decoder() -> None:
    """And told by the tokens that they are: Mllama's 68 image keys come first."""
    winner = explained("mllama")[0].diagnostics["text_winners"][0]
    ids = BEYOND["mllama"]().inputs["input_ids"][0].tolist() + TARGETS.tolist()
    assert winner["token"] == str(ids[winner["position"] - 68])


def test_a_head_that_is_replaced_between_two_calls_is_found() -> None:
    beyond = BEYOND["blip-2/t5"]()
    explainer = Explainer(beyond.model)
    explainer.explain_inputs(beyond.inputs, target_ids=TARGETS)
    torch.manual_seed(0)
    beyond.model.language_model.lm_head = nn.Linear(64, 200, bias=False, dtype=torch.float64)
    agrees(explainer.explain_inputs(beyond.inputs, target_ids=TARGETS), calls_oracle.expected(beyond, TARGETS), BOUND)


@pytest.mark.parametrize("name", ["florence2", "blip-2/t5", "udop"])
def test_encoder_and_decoder_may_share_an_embedding(name: str) -> None:
    """As they do once it is resized: then one module stands at two places."""
    beyond, targets = BEYOND[name](), torch.tensor([20, 210])
    beyond.model.resize_token_embeddings(230, mean_resizing=False)
    found = Explainer(beyond.model).explain_inputs(beyond.inputs, target_ids=targets)
    agrees(found, calls_oracle.expected(beyond, targets), BOUND)


@pytest.mark.parametrize("name", ["git", "blip"])
def test_an_image_alone_is_described(name: str) -> None:
    beyond = BEYOND[name]()
    alone = {"pixel_values": beyond.inputs["pixel_values"]}
    found = Explainer(beyond.model).explain_inputs(alone, max_new_tokens=2, min_new_tokens=2)
    assert len(found.token_ids) == 2 and found.token_maps.any()


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"mode": "official"}, "authors' code"),
        ({"text_relevance": True}, "one sequence"),
        ({"map_filter": ("rank", 5)}, "2-D maps"),
    ],
)
def test_knobs_without_a_meaning_are_refused(knobs: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        explained("blip", **knobs)


def test_a_pool_is_left_alone_and_this_is_said() -> None:
    beyond, pool = BEYOND["mllama"](), KVPool(64)
    with pytest.warns(UserWarning, match="the pool is not used"):
        found = Explainer(beyond.model, pool=pool).explain_inputs(beyond.inputs, target_ids=TARGETS)
    agrees(found, calls_oracle.expected(beyond, TARGETS), BOUND)
    assert any("the pool is not used" in each for each in found.diagnostics["warnings"])


def test_other_methods_are_refused() -> None:
    with pytest.raises(ModelError, match="the only method for it is 'dex-ar'"):
        explained("mllama", method="attention")


def test_an_answer_that_goes_on_otherwise_than_in_generate_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    beyond = BEYOND["kosmos-2.5"]()

    def as_image(begun: Any, answer: torch.Tensor) -> Any:
        full = beyond.answered(answer)
        return full | {"attention_mask": full["attention_mask"].index_fill(1, torch.tensor([4]), 0)}

    monkeypatch.setattr(written, "with_answer", as_image)
    with pytest.raises(ModelError, match="is not what its generate\\(\\) computes"):
        Explainer(beyond.model).explain_inputs(beyond.inputs, target_ids=TARGETS)


@pytest.mark.parametrize("name", ["vision-encoder-decoder/trocr", "pp_formulanet", "blip", "git"])
def test_a_batch_of_images_is_refused(name: str) -> None:
    """TrOCR's decoder would read both as one."""
    beyond = BEYOND[name]()
    both = beyond.inputs | {"pixel_values": beyond.inputs["pixel_values"].repeat(2, 1, 1, 1)}
    with pytest.raises(InputError, match=r"pixel_values holds 2 images, and .* reads one"):
        Explainer(beyond.model).explain_inputs(both, target_ids=TARGETS)


def test_missing_images_and_foreign_ids_are_told() -> None:
    beyond: Beyond = BEYOND["blip-2"]()
    explainer = Explainer(beyond.model)
    with pytest.raises(InputError, match="no image"):
        explainer.explain_inputs({"input_ids": beyond.inputs["input_ids"]}, target_ids=TARGETS)
    text = {**beyond.inputs, "input_ids": torch.full_like(beyond.inputs["input_ids"], 7)}
    with pytest.raises((InputError, ModelError)):
        explainer.explain_inputs(text, target_ids=TARGETS)
    with pytest.raises(InputError, match="vocabulary"):
        explainer.explain_inputs(beyond.inputs, target_ids=torch.tensor([200]))


WORDS = ["[PAD]", "[EOS]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", "what", "is", "this", "a", "cat"]
PICTURE = Image.new("RGB", (20, 12), (200, 30, 30))


def blip_processor(folder: Path) -> transformers.BlipProcessor:
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    names = ["input_ids", "attention_mask"]
    tokenizer = transformers.BertTokenizerFast(str(folder / "vocab.txt"), model_input_names=names)
    return transformers.BlipProcessor(transformers.BlipImageProcessor(size={"height": 16, "width": 16}), tokenizer)


def test_a_question_goes_to_a_processor_without_image_tokens_as_it_stands(tmp_path: Path) -> None:
    """BLIP's would read "<image>" as words."""
    beyond = BEYOND["blip"]()
    explainer = Explainer(beyond.model.float(), blip_processor(tmp_path))
    found = explainer.explain(PICTURE, "what is this", "a cat")
    assert found.tokens == ["a", " cat"] and found.metadata["prompt_tokens"] == 5
    winners = {each["token"].strip() for each in found.diagnostics["text_winners"]}
    assert winners <= {"[CLS]", *WORDS[6:]} and len(found.visual_positions) == 17


def reader(folder: Path) -> tuple[Any, transformers.TrOCRProcessor]:
    """A model that reads text in an image, without a prompt."""
    model = BEYOND["vision-encoder-decoder/bert"]().model.float()
    images = transformers.ViTImageProcessor(size={"height": 16, "width": 16})
    return model, transformers.TrOCRProcessor(images, blip_processor(folder).tokenizer)


def test_an_image_is_read_without_a_prompt(tmp_path: Path) -> None:
    explainer = Explainer(*reader(tmp_path))
    found = explainer.explain(PICTURE, "", "a cat")
    assert found.token_ids.tolist() == [9, 10] and found.metadata["question"] == ""
    with pytest.warns(UserWarning, match="TrOCRProcessor takes a text for an answer to train on"):
        words = explainer.explain(PICTURE, "what is this", "a cat")
    torch.testing.assert_close(words.token_maps, found.token_maps)
    with pytest.raises(InputError, match="the prompt is empty"):
        explainer.explain(PICTURE, [{"role": "user", "content": " "}], "a cat")


def test_a_given_answer_begins_as_generate_makes_it_begin(tmp_path: Path) -> None:
    """Florence-2's config forces BART's <s> in front of the first word."""
    model, processor = reader(tmp_path)
    model.generation_config.update(forced_bos_token_id=5, decoder_start_token_id=2)
    explainer = Explainer(model, processor)
    assert explainer.explain(PICTURE, "", max_new_tokens=2).token_ids[0] == 5
    assert explainer.explain(PICTURE, "", "a cat").token_ids.tolist() == [5, 9, 10]


def runs(modules: Sequence[torch.nn.Module]) -> Counter[torch.nn.Module]:
    """How often each runs from now on."""
    seen: Counter[torch.nn.Module] = Counter()
    for module in modules:
        module.register_forward_hook(lambda module, *_: seen.update([module]))
    return seen


@pytest.mark.parametrize("name", ["blip", "blip-2", "git", "kosmos-2", "mllama", "florence2", "udop", "pix2struct"])
def test_a_known_prompt_begins_with_its_first_layers_alone(name: str) -> None:
    """And what an encoder gave there serves the answer, too."""
    beyond = BEYOND[name]()
    explainer = Explainer(beyond.model)
    explainer.explain_inputs(beyond.inputs, target_ids=TARGETS)
    decoder = explainer.decoder
    assert decoder is not None and decoder.begins
    encoders = [beyond.model.get_encoder()] if name in ("florence2", "udop", "pix2struct") else []
    seen = runs([decoder.layers[-1], *encoders])
    again = explainer.explain_inputs(beyond.inputs, target_ids=TARGETS)
    assert set(seen.values()) == {1} and len(seen) == 1 + len(encoders)
    agrees(again, calls_oracle.expected(beyond, TARGETS), BOUND)


@pytest.mark.parametrize("name", ["git", "udop"])
def test_a_prompt_whose_first_layers_tell_something_else_runs_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    beyond = BEYOND[name]()
    explainer = Explainer(beyond.model)
    early = begun._first_layers

    def other(*given: Any) -> Any:
        found = early(*given)
        return replace(found, begun=replace(found.begun, ids=found.begun.ids + 1))

    monkeypatch.setattr(begun, "_first_layers", other)
    for _ in range(2):
        agrees(
            explainer.explain_inputs(beyond.inputs, target_ids=TARGETS), calls_oracle.expected(beyond, TARGETS), BOUND
        )
    assert explainer.decoder is not None and explainer.decoder.begins is False


def test_an_encoders_states_that_change_the_model_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    beyond = BEYOND["udop"]()
    explainer = Explainer(beyond.model)
    plain = type(beyond.model).forward

    @wraps(plain)
    def forward(self: Any, *args: Any, **given: Any) -> Any:
        """Another answer where states are given and there is no cache."""
        found = plain(self, *args, **given)
        if given.get("encoder_outputs") is not None and not given.get("use_cache", True):
            found.logits = found.logits * 2
        return found

    monkeypatch.setattr(type(beyond.model), "forward", forward)
    for _ in range(2):
        agrees(
            explainer.explain_inputs(beyond.inputs, target_ids=TARGETS), calls_oracle.expected(beyond, TARGETS), BOUND
        )
    assert explainer.decoder is not None and explainer.decoder.begins is False

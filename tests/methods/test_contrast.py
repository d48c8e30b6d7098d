"""Why this token rather than that one: differences of logits, and pairs of probabilities."""

from __future__ import annotations

import html
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import oracle as oracles
import pytest
import torch
import zoo
from asked import asked
from attention_oracle import Brute
from command_line import run as run_command
from oracle import full_sequence, oracle, text_model
from PIL import Image
from types_beyond import BEYOND

from dexar_fast import Explainer, Explanation, ModelError
from dexar_fast.errors import InputError
from dexar_fast.methods import contrast, registry
from dexar_fast.methods.attention.gradient import AttentionGradient
from dexar_fast.methods.gradient.plain import GradientXInput, InputGradient
from dexar_fast.methods.masked.occlusion import Occlusion
from dexar_fast.report import plain_words

IMAGE, PROMPT, ANSWER = "dexar_fast/assets/sample.png", "Describe the image.", " A red triangle."
TOKENS, OTHERS = torch.tensor([165, 19, 144]), torch.tensor([7, 88, 41])
CONTRASTING = [name for name in registry.names() if getattr(registry.of(name), "contrasts", False)]
FEW = {"rise": "rise:samples=8", "igos++": "igos++:side=4,steps=1,iterations=2", "eagle": "eagle:regions=4"}


@pytest.fixture(scope="module")
def embedded() -> Explainer:
    return Explainer.from_pretrained()


def of(embedded: Explainer, method: Any, against: Any) -> Any:
    explainer = Explainer(embedded.model, embedded.processor, method=method, against=against)
    return explainer.explain(IMAGE, PROMPT, ANSWER)


@pytest.mark.parametrize("family", ["llava", "qwen3_vl", "paligemma2"])
def test_gradients_are_those_of_the_difference(family: str) -> None:
    model, inputs = zoo.build(family)
    wanted = {name: x for name, x in inputs.items() if name != "labels"}
    kept: list[torch.Tensor] = []

    def enter(module: Any, args: Any) -> Any:
        kept.append(args[0].detach().requires_grad_())
        return (kept[0], *args[1:])

    text_model(model).layers[0].register_forward_pre_hook(enter)
    logits = model(**full_sequence(model, wanted, TOKENS), use_cache=False).logits[0]
    first = wanted["input_ids"].shape[1] - 1
    visual = (wanted["input_ids"][0] == zoo.IMAGE).nonzero()[:, 0]
    with asked(*zoo.build(family), TOKENS) as request:
        found = InputGradient().maps(replace(request, against=OTHERS))
    for t, (own, other) in enumerate(zip(TOKENS.tolist(), OTHERS.tolist(), strict=True)):
        difference = logits[first + t, own] - logits[first + t, other]
        (gradient,) = torch.autograd.grad(difference, kept[0], retain_graph=True)
        if family == "qwen3_vl":  # its deepstack takes part, too
            assert (found.token_maps[t] >= gradient[0, visual].norm(dim=-1) * (1 - 1e-6)).all()
        else:
            length = gradient[0, visual].norm(dim=-1)
            torch.testing.assert_close(found.token_maps[t], length, rtol=1e-5, atol=1e-5 * float(length.max()))


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "gemma3", "paligemma2", "qwen3_vl_moe"])
def test_dex_ars_gradients_are_those_of_the_difference(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """relu of the difference's gradient, not a difference of relus; by answers as a whole and in chunks."""
    model, inputs = zoo.build(family)
    wanted = {name: x for name, x in inputs.items() if name != "labels"}
    expected = oracle(*zoo.build(family), TOKENS, against=OTHERS)
    monkeypatch.setattr(contrast, "_ids", lambda asked, against: OTHERS)
    for chunk in (None, 2):
        explainer = Explainer(model, None, against=7, chunk_size=chunk)
        for _ in range(2):  # the second finds what the first has learnt of the layers
            found = explainer.explain_inputs(wanted, TOKENS)
            for name in ("visual_scores", "text_scores", "token_maps", "token_weights", "sequence_map"):
                bound = 1e-5 * float(expected[name].abs().max())
                torch.testing.assert_close(getattr(found, name).double(), expected[name], rtol=0, atol=bound)
    assert found.diagnostics["against"] == [str(id) for id in OTHERS.tolist()]


class Differences(Brute):
    """The attention methods by brute force, of differences."""

    def _lens(self, layer: int, t: int) -> torch.Tensor:
        other = oracles._gradient(self.model, self.run, layer, self.first + t, int(OTHERS[t]))
        return super()._lens(layer, t) - other


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "paligemma2"])
def test_attention_times_the_differences_gradient(family: str) -> None:
    with asked(*zoo.build(family), TOKENS) as request:
        brute = Differences(request)
        expected = brute.of_lens(brute.layers)
    with asked(*zoo.build(family), TOKENS) as request:
        found = AttentionGradient().maps(replace(request, against=OTHERS)).token_maps
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5 * float(expected.max()))


def plain_scores(embedded: Explainer, picture: Image.Image) -> torch.Tensor:
    """[T, V]: the log-probabilities at the places of the answer's tokens, of one plain forward."""
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]}]
    text = embedded.processor.apply_chat_template(messages, add_generation_prompt=True)
    inputs = embedded.processor(images=picture, text=text, return_tensors="pt")
    answer = embedded.explain(IMAGE, PROMPT, ANSWER).token_ids
    with torch.no_grad():
        ids = torch.cat([inputs["input_ids"], answer[None]], 1)
        logits = embedded.model(input_ids=ids, pixel_values=inputs["pixel_values"]).logits[0].double()
    return logits[-1 - len(answer) : -1].log_softmax(-1)


def test_hidden_parts_are_scored_by_the_pair_of_probabilities(embedded: Explainer) -> None:
    """log p / (p + q) of each token, its fall where one half of the picture is hidden."""
    picture = Image.open(IMAGE).convert("RGB")
    labels = np.zeros(picture.size[::-1], int)
    labels[:, picture.width // 2 :] = 1
    found = of(embedded, Occlusion(labels=labels, fill="black"), "circle")
    own, other = found.token_ids, embedded.processor.tokenizer(" circle", add_special_tokens=False)["input_ids"]
    shown = [
        picture,
        *(Image.fromarray(np.where(labels[..., None] == half, 0, picture).astype(np.uint8)) for half in (0, 1)),
    ]
    odds = []
    for each in shown:
        scores = plain_scores(embedded, each)
        mine = scores.gather(1, own[:, None])[:, 0]
        odds.append(mine - torch.logaddexp(mine, scores[:, other[0]]))
    falls = torch.stack([odds[0] - odds[1], odds[0] - odds[2]], 1).relu().float()
    behind_a_space = [token.startswith(" ") for token in found.tokens]
    assert found.diagnostics["against"][:3] == [" circle"] * 3 and behind_a_space == [True] * 3 + [False]
    torch.testing.assert_close(found.token_maps[:3], falls[:3], rtol=1e-3, atol=1e-5)


def test_the_runner_up_is_the_likeliest_other_token(embedded: Explainer) -> None:
    found = of(embedded, "input-gradient", "runner-up")
    scores = plain_scores(embedded, Image.open(IMAGE).convert("RGB"))
    scores[torch.arange(len(scores)), found.token_ids] = float("-inf")
    expected = [embedded.processor.tokenizer.decode([id]) for id in scores.argmax(1).tolist()]
    assert [text.strip() for text in found.diagnostics["against"]] == [text.strip() for text in expected]
    assert "the runner-up at its place" in found.diagnostics["notes"][-1]
    assert found.metadata["settings"]["against"] == "runner-up"


@pytest.mark.parametrize("method", CONTRASTING)
def test_every_method_that_contrasts_does(embedded: Explainer, method: str) -> None:
    """Another map than without, which says what it is against; a token against itself shows nothing."""
    method = FEW.get(method, method)
    plain, against = (of(embedded, method, other) for other in (None, "blue"))
    assert not torch.equal(plain.token_maps, against.token_maps)
    assert "Contrastive: every value is of the token against 'blue'" in plain_words.numbers(against)[-1]
    assert "against" not in plain.diagnostics


def test_a_token_against_itself_has_an_empty_map(embedded: Explainer) -> None:
    found = of(embedded, GradientXInput(), "red")
    assert found.tokens[1] == " red"
    assert found.token_maps[1].abs().max() == 0 < found.token_maps[2].max()


@pytest.mark.parametrize("method", ["tam", "attention", "random", "rollout"])
def test_methods_without_a_difference_refuse_it(embedded: Explainer, method: str) -> None:
    with pytest.raises(InputError, match=f"method '{method}' explains no token against another"):
        of(embedded, method, "dog")


@pytest.mark.parametrize("name", ["mllama", "florence2", "blip"])
def test_models_that_read_the_image_elsewhere_refuse_it_by_name(name: str) -> None:
    beyond = BEYOND[name]()
    explainer = Explainer(beyond.model, against=7)
    with pytest.raises(InputError, match="against is defined where image and text stand in one sequence: leave it out"):
        explainer.explain_inputs(beyond.inputs, target_ids=torch.tensor([20, 31, 44]))


def test_to_check_the_map_of_such_a_model_is_refused_for_its_true_reason() -> None:
    beyond = BEYOND["blip"]()
    explainer = Explainer(beyond.model)
    found = explainer.explain_inputs(beyond.inputs, target_ids=torch.tensor([20, 31, 44]))
    with pytest.raises(ModelError, match="the only method for it is 'dex-ar'"):
        explainer.check(found)


@pytest.mark.parametrize(
    ("against", "message"),
    [
        (True, "against is a word, a token id or 'runner-up', not True"),
        ("", "against is a word"),
        (1.5, "against is a word"),
        (10**6, "against 1000000 is no token of the model"),
        (-1, "against -1 is no token of the model"),
        ("  ", "holds no token of the model's tokenizer"),
    ],
)
def test_bad_values_are_refused(embedded: Explainer, against: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        of(embedded, "input-gradient", against)


def test_what_the_answer_says_itself_is_refused(embedded: Explainer) -> None:
    explainer = Explainer(embedded.model, embedded.processor, method="input-gradient", against="red")
    with pytest.raises(InputError, match="against 'red' is what the answer says"):
        explainer.explain(IMAGE, PROMPT, " red")


def test_a_word_takes_a_tokenizer(embedded: Explainer) -> None:
    explainer = Explainer(embedded.model, None, method="input-gradient", against="red")
    inputs = embedded.processor(images=Image.open(IMAGE), text="<image> What?", return_tensors="pt")
    with pytest.raises(InputError, match="takes the processor's tokenizer"):
        explainer.explain_inputs(inputs, torch.tensor([5, 6]))


def test_a_stream_refuses_it(embedded: Explainer) -> None:
    explainer = Explainer(embedded.model, embedded.processor, method="attention-gradient:of=final", against="red")
    with pytest.raises(InputError, match="use explain"):
        explainer.stream(IMAGE, PROMPT)


def test_the_command_line_takes_it(tmp_path: Path) -> None:
    wanted = ["--response", ANSWER, "--against", "blue", "--out", str(tmp_path)]
    run = run_command("compare", IMAGE, PROMPT, "--methods", "attn-lrp,input-gradient", *wanted)
    assert run.exit_code == 0, run.output
    assert "against 'blue'" in html.unescape((tmp_path / "compare.html").read_text())
    run = run_command("explain", IMAGE, PROMPT, "--method", "tam", *wanted, "--force")
    assert run.exit_code == 2 and "explains no token against another" in run.output


def test_each_other_token_is_told_by_itself(embedded: Explainer) -> None:
    """They are no text: bytes of characters do not wait for those of the next one."""
    found = of(embedded, "input-gradient", "日本").diagnostics["against"]
    assert found == ["\ufffd"] * 4


def test_an_id_of_numpy_is_an_id(embedded: Explainer) -> None:
    number = np.int64(7)
    assert type(Explainer(embedded.model, embedded.processor, against=number).against) is int
    found = of(embedded, "dex-ar", number)
    assert torch.equal(found.token_maps, of(embedded, "dex-ar", 7).token_maps)


def test_the_seconds_of_a_written_answer_stay(embedded: Explainer) -> None:
    explainer = Explainer(embedded.model, embedded.processor, against="dog")
    found = explainer.explain(IMAGE, PROMPT, max_new_tokens=2)
    assert {"processor", "answer", "explain"} <= found.metadata["seconds"].keys()


def test_a_folder_is_refused_for_what_it_is(embedded: Explainer, tmp_path: Path) -> None:
    explainer = Explainer(embedded.model, embedded.processor, against="dog")
    with pytest.raises(InputError, match=r"^against explains an answer as a whole"):
        explainer.explain(IMAGE, PROMPT, ANSWER, out=tmp_path / "new")


@pytest.mark.parametrize("method", ["input-gradient", "attn-lrp"])
def test_gradients_are_taken_in_inference_mode(embedded: Explainer, method: str) -> None:
    expected = of(embedded, method, "dog").token_maps
    with torch.inference_mode():
        found = of(embedded, method, "dog").token_maps
    assert torch.equal(found, expected)


def test_a_job_takes_it_and_goes_on_with_the_same_alone(tmp_path: Path) -> None:
    wanted = ["run", "shapes:count=1,asked=one", "--out", str(tmp_path), "--against"]
    assert run_command(*wanted, "blue").exit_code == 0
    (kept,) = (tmp_path / "_explanations").iterdir()
    assert Explanation.load(kept).metadata["settings"]["against"] == "blue"
    assert run_command(*wanted, "blue").exit_code == 0
    other = run_command(*wanted, "red")
    assert other.exit_code == 2 and 'against "blue", not "red"' in " ".join(other.output.split())

"""TAM: against the authors' own outputs, and against a slow implementation in float64 over the families."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_llava
import torch
import zoo
from asked import asked, asked_of
from oracle import full_sequence
from scipy.optimize import minimize_scalar

from dexar_fast.methods.activation.rank_gaussian import rank_gaussian
from dexar_fast.methods.activation.tam import Tam, activation_maps
from dexar_fast.methods.activation.text_items import text_items
from dexar_fast.methods.base import Asked

REFERENCE = Path(__file__).parent / "reference"
FAMILIES = ("llava", "bakllava", "llava_onevision", "qwen2_5_vl", "qwen3_vl_moe", "paligemma2", "gemma3", "aya_vision")
Array = Any


@pytest.fixture(scope="module")
def theirs() -> dict[str, torch.Tensor]:
    """Their run, the logits of every pair of a position and an id in it, and the ids of its items."""
    found = np.load(REFERENCE / "tam_llava.npz")
    arrays = {name: torch.from_numpy(found[name]) for name in found.files if found[name].dtype.kind != "U"}
    hidden = torch.cat([arrays["hidden0"], arrays["hidden_rest"]])
    return arrays | {"scores": (hidden.double() @ arrays["lm_head"].double().T).relu()}


def their_items(theirs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, positions and names of the 4 words of the prompt (between `<image>` and `ASSISTANT :`) and of the answer.

    They take another id than its own for the first word, what the model would write there, and for answer token 0, that
    of the prompt's last token.
    """
    tokens, prompt = theirs["tokens"], int(theirs["n_prompt_tokens"])
    words = torch.arange(int((tokens == 4).nonzero()[-1]) + 1, prompt - 2)
    positions = torch.cat([words, torch.arange(prompt - 1, len(tokens) - 1)])
    first, last = theirs["scores"][words[0]].argmax(), tokens[prompt - 1]
    ids = torch.cat([first[None], tokens[words[1:]], last[None], tokens[prompt + 1 :]])
    return ids, positions, torch.cat([tokens[words], tokens[prompt:]])


def test_raw_maps_are_theirs(theirs: dict[str, torch.Tensor]) -> None:
    ids, _, _ = their_items(theirs)
    visual = (theirs["tokens"] == 4).nonzero()[:, 0]
    torch.testing.assert_close(theirs["scores"][visual][:, ids].T, theirs["raw_maps"].double(), rtol=0, atol=1e-5)


def test_rounds_are_theirs_within_one_step_of_their_eight_bits(theirs: dict[str, torch.Tensor]) -> None:
    ids, positions, names = their_items(theirs)
    visual = (theirs["tokens"] == 4).nonzero()[:, 0]
    targets = theirs["tokens"][int(theirs["n_prompt_tokens"]) :]
    text = theirs["scores"][positions][:, targets]
    maps = activation_maps(theirs["scores"][visual][:, ids], text, names).unflatten(1, (24, 24))
    for number in range(1, len(targets)):
        torch.testing.assert_close(maps[number], theirs[f"round{number}/filter_in/0"], rtol=0, atol=1e-5)
        eighth_bit = (255 * rank_gaussian(maps[number])).int() - theirs[f"round{number}/map"].int()
        assert eighth_bit.abs().max() <= 1


def test_their_round_0_is_that_of_the_words_of_the_prompt(theirs: dict[str, torch.Tensor]) -> None:
    """The recursion: each word of the prompt in turn, then answer token 0 under the id of the prompt's last token."""
    ids, positions, _ = their_items(theirs)
    tokens, prompt = theirs["tokens"], int(theirs["n_prompt_tokens"])
    names = torch.cat([tokens[positions[:4]], tokens[prompt - 1][None]])
    visual = (tokens == 4).nonzero()[:, 0]
    for last in range(5):
        some = slice(0, last + 1)
        text = theirs["scores"][positions[some]][:, ids[last : last + 1]]
        (found,) = activation_maps(theirs["scores"][visual][:, ids[some]], text, names[some])
        expected = theirs[f"round0/filter_in/{last}"].double()
        torch.testing.assert_close(found.unflatten(0, (24, 24)), expected, rtol=0, atol=1e-5)
    first = (255 * rank_gaussian(theirs["round0/filter_in/0"])).int()
    assert (first - theirs["round0/map"].int()).abs().max() <= 1


@pytest.mark.parametrize("case", range(8))
def test_the_filter_is_theirs_and_a_constant_stays(case: int) -> None:
    units = np.load(REFERENCE / "tam_units.npz")
    given, expected = (torch.from_numpy(units[f"filter/{case}/{side}"]) for side in ("in", "out"))
    expected = torch.where(expected.isnan(), given, expected)  # theirs divides 0 by 0 there
    torch.testing.assert_close(rank_gaussian(given), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 1), (2, 2), (3, 7)])
def test_the_filter_of_any_shape(shape: tuple[int, int]) -> None:
    maps = torch.rand(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = np.stack([slow_filter(each) for each in maps.numpy()])
    np.testing.assert_allclose(rank_gaussian(maps), expected, atol=1e-12)


def test_the_filter_of_nothing_and_of_almost_a_constant() -> None:
    assert torch.equal(rank_gaussian(torch.zeros(3, 3)), torch.zeros(3, 3))
    almost = torch.full((3, 4), 0.5)
    almost[1, 1] = torch.nextafter(almost[1, 1], torch.tensor(1.0))
    assert torch.equal(rank_gaussian(almost), torch.full((3, 4), 0.5))


@pytest.mark.parametrize("case", range(5))
def test_the_factor_is_that_of_their_minimiser(case: int) -> None:
    """One earlier item of score 1 explains as much of the target's map as their least squares says."""
    units = np.load(REFERENCE / "tam_units.npz")
    earlier, target = (torch.from_numpy(units[f"lsq/{case}/map{n}"]).double() for n in (2, 1))
    left = (target - float(units[f"lsq/{case}/x"]) * earlier).relu()
    text = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    (found,) = activation_maps(torch.stack([earlier, target], 1), text, torch.tensor([0, 1]))
    low, high = min(float(left.min()), 1), max(float(left.max()), 1)
    torch.testing.assert_close(found, (left - low) / (high - low), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("knobs", [{}, {"correction": False, "filter": False}], ids=["all", "raw"])
def test_maps_are_those_of_a_slow_implementation(family: str, knobs: dict[str, bool]) -> None:
    with asked_of(family, 5) as request:
        found = Tam(**knobs).maps(request)
        expected = slow_tam(request, **{"correction": True, "filter": True} | knobs)
    assert found.token_maps.dtype == torch.float32 and found.token_weights is None
    np.testing.assert_allclose(found.token_maps, expected, atol=2e-5)
    np.testing.assert_allclose(found.sequence_map, expected.sum(0), atol=1e-4)


def test_one_token_behind_an_image_that_ends_the_prompt_has_nothing_to_correct_it() -> None:
    model, inputs = zoo.build("qwen2_5_vl")
    end = int((inputs["input_ids"][0] == zoo.IMAGE).nonzero()[-1]) + 1
    cut = {name: x[:, :end] if x.shape == inputs["input_ids"].shape else x for name, x in inputs.items()}
    with asked(model, cut, torch.tensor([33])) as request:
        found = Tam(filter=False).maps(request).token_maps
        logits = model(**cut).logits[0, request.visual, 33].relu()
    low, high = logits.min(), logits.max()
    torch.testing.assert_close(found[0].double(), (logits - low) / (high - low), rtol=0, atol=1e-5)


def test_no_score_anywhere_gives_blank_maps() -> None:
    maps = activation_maps(torch.zeros(4, 3), torch.zeros(3, 2), torch.arange(3))
    assert torch.equal(maps, torch.zeros(2, 4))


def test_equal_words_do_not_correct_each_other() -> None:
    """The same text with and without a space before it is one word; special tokens are no words."""
    processor = small_llava.processor()
    tokenizer = processor.tokenizer
    model = small_llava.model(tokenizer)
    picture = small_llava.noise()
    inputs = processor(images=picture, text="USER: <image>the cat</s> ASSISTANT:", return_tensors="pt")
    answer = torch.tensor(tokenizer(" cat dog", add_special_tokens=False).input_ids)
    with asked(model, dict(inputs), answer, processor=processor, images=[picture]) as request:
        items = text_items(request)
    texts = [tokenizer.decode([token]) for token in items.ids.tolist()]
    assert tokenizer.eos_token not in texts and texts[-2:] == [" cat", " dog"]
    same = [text for text, name in zip(texts, items.names, strict=True) if name == items.names[-2]]
    assert same == [" cat", " cat"]
    assert items.positions[-2:].tolist() == [inputs["input_ids"].shape[1] - 1, inputs["input_ids"].shape[1]]


def test_no_array_of_all_logits_is_made() -> None:
    """The table holds the items' ids only, whatever the vocabulary."""
    with asked_of("llava", 4, dtype=torch.float32) as request:
        shapes: list[tuple[int, ...]] = []
        hook = request.decoder.lens.head.register_forward_hook(lambda m, a, output: shapes.append(output.shape))
        Tam().maps(request)
        hook.remove()
    assert shapes == [(1, 1, zoo.VOCABULARY)]  # the last position's, which the lens is checked with


def slow_tam(request: Asked, correction: bool, filter: bool) -> Array:
    """Maps [T, N] from all logits of the model itself, word by word."""
    prompt = request.inputs["input_ids"][0].tolist()
    with torch.no_grad():
        whole = full_sequence(request.model, dict(request.inputs), request.targets)
        scores = request.model(**whole).logits[0].double().clamp(min=0).numpy()
    visual = request.visual.numpy()
    special = {zoo.BOS, zoo.EOS, zoo.PAD, zoo.IMAGE, zoo.VIDEO, zoo.START, zoo.END}
    named = {value for value in vars(request.model.config).values() if isinstance(value, int)} & special
    named |= {zoo.BOS, zoo.EOS, zoo.PAD}
    earlier = [(token, place) for place, token in enumerate(prompt) if place > visual[-1] and token not in named]
    maps = []
    for number, target in enumerate(request.targets.tolist()):
        image = scores[visual, target]
        if correction:
            image = corrected(image, target, earlier, scores, visual)
        values = [*image, *(scores[place, target] for _, place in earlier)]
        image = (image - min(values)) / (max(values) - min(values))
        for grid in request.grids if filter else ():
            image[grid.cells] = slow_filter(image[grid.cells])
        maps.append(image)
        earlier.append((target, len(prompt) - 1 + number))
    return np.stack(maps)


def corrected(image: Array, target: int, earlier: list[tuple[int, int]], scores: Array, visual: Array) -> Array:
    others = [(token, scores[place, target]) for token, place in earlier if token != target]
    total = sum(weight for _, weight in others) + 1e-8
    explained = sum((weight / total * scores[visual, token] for token, weight in others), np.zeros(len(visual)))
    factor = minimize_scalar(lambda a: ((image - a * explained) ** 2).sum(), tol=1e-12).x
    return np.maximum(image - factor * explained, 0)


def slow_filter(image: Array) -> Array:
    rows, columns = image.shape
    filtered = np.zeros_like(image)
    for row, column in itertools.product(range(rows), range(columns)):
        near = sorted(
            image[mirrored(row + down, rows), mirrored(column + right, columns)]
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
        )
        if np.mean(near) <= 0:
            continue
        spread = np.std(near) / np.mean(near)
        weights = [np.exp(-((k / spread) ** 2) / 2) if spread > 1e-6 else float(k == 0) for k in range(-4, 5)]
        filtered[row, column] = np.dot(weights, near) / sum(weights)
    return filtered


def mirrored(index: int, size: int) -> int:
    """Past an edge the neighbour on its other side; the only element of an axis is its own neighbour."""
    if size == 1:
        return 0
    return abs(index) if index < size else 2 * (size - 1) - index


def test_scores_that_are_no_numbers_give_no_blank_map() -> None:
    """A blank map would be a result; the maps of a model that overflows are refused."""
    visual, text = torch.ones(4, 2).double(), torch.ones(2, 2).double()
    visual[1] = torch.nan
    found = activation_maps(visual, text, None)
    assert found.isnan().all() and rank_gaussian(found.view(2, 2, 2)).isnan().all()

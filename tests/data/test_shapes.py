"""The Shapes set: determinism, masks, questions; and the embedded model's folder."""

import sys
from collections import Counter

import numpy as np
import pytest
import torch
from paths import ROOT
from transformers import AutoProcessor, LlavaForConditionalGeneration

from dexar_fast.data import shapes

ASSETS = ROOT / "dexar_fast" / "assets"
MODEL = ASSETS / "shapes-llava"
LAYOUTS = [shapes.layout(seed) for seed in range(300)]
RED_CIRCLE = shapes.Placed("red", "circle", 0.2, 0.5, 0.15, 0)
BLUE_STAR = shapes.Placed("blue", "star", 0.7, 0.5, 0.15, 0)
RED_STAR = shapes.Placed("red", "star", 0.9, 0.5, 0.15, 0)


def test_a_scene_is_a_function_of_its_seed():
    first, again, other = shapes.draw_scene(7), shapes.draw_scene(7), shapes.draw_scene(8)
    assert first.objects == again.objects == shapes.layout(7)
    assert np.array_equal(np.asarray(first.image), np.asarray(again.image))
    assert np.array_equal(first.masks, again.masks)
    assert not np.array_equal(np.asarray(first.image), np.asarray(other.image))


def test_layouts_hold_one_to_three_objects_left_to_right_with_a_margin_and_no_twins():
    assert {len(objects) for objects in LAYOUTS} == {1, 2, 3}
    for objects in LAYOUTS:
        steps = np.diff([item.x for item in objects])
        assert (steps >= 0.17).all()
        assert len({(item.color, item.shape) for item in objects}) == len(objects)


@pytest.mark.parametrize("seed", range(8))
def test_masks_lie_on_their_objects_and_nowhere_else(seed):
    scene = shapes.draw_scene(seed)
    assert scene.masks.dtype == np.bool_
    assert scene.masks.shape == (len(scene.objects), shapes.SIZE, shapes.SIZE)
    assert scene.masks.sum(axis=0).max() == 1
    pixels = np.asarray(scene.image, dtype=float)
    for item, mask in zip(scene.objects, scene.masks, strict=True):
        rows, columns = np.nonzero(mask)
        assert 80 <= np.ptp(columns) <= 150 and 80 <= np.ptp(rows) <= 160
        assert abs(columns.mean() / shapes.SIZE - item.x) < 0.03
        assert np.abs(pixels[mask].mean(axis=0) - shapes.COLORS[item.color]).max() < 35
        assert pixels[mask].std(axis=0).max() < 25


def test_a_larger_canvas_keeps_the_layout():
    small, large = shapes.draw_scene(3), shapes.draw_scene(3, size=512)
    assert large.image.size == (512, 512)
    assert small.masks.mean() == pytest.approx(large.masks.mean(), rel=0.02)


def test_answers_read_as_written():
    pair = (RED_CIRCLE, BLUE_STAR)
    assert shapes.describe(pair).answer == "A red circle and a blue star."
    assert shapes.describe((*pair, RED_STAR)).answer == "A red circle, a blue star and a red star."
    assert shapes.what_color(pair, 0).text == "What color is the circle?"
    assert shapes.what_color(pair, 0).answer == "The circle is red."
    assert shapes.which_shape(pair, 1).text == "Which shape is blue?"
    assert shapes.which_shape(pair, 1).answer == "The blue shape is a star."
    assert shapes.is_there(pair, "red", "circle").answer == "Yes, there is a red circle."
    assert shapes.is_there(pair, "red", "star").answer == "No, there is no red star."


def test_lookups_are_asked_only_about_what_is_unique():
    objects = (RED_CIRCLE, BLUE_STAR, RED_STAR)
    assert [question.text for question in shapes.color_questions(objects)] == ["What color is the circle?"]
    assert [question.text for question in shapes.shape_questions(objects)] == ["Which shape is blue?"]


def test_negatives_are_absent_at_their_level():
    objects = (RED_CIRCLE, BLUE_STAR)
    assert {question.text for question in shapes.absent_questions(objects, "hard")} == {
        "Is there a red star?",
        "Is there a blue circle?",
    }
    texts = [
        question.text for level in ("hard", "half", "easy") for question in shapes.absent_questions(objects, level)
    ]
    assert len(set(texts)) == len(texts) == len(shapes.COLORS) * len(shapes.SHAPES) - len(objects)
    assert all(question.words[0].text == "No" for question in shapes.absent_questions(objects, "easy"))


def test_visual_words_name_the_object_they_speak_of():
    rng = np.random.default_rng(0)
    for objects in LAYOUTS[:100]:
        for question in shapes.sample_questions(objects, rng):
            for word in question.words:
                said = word.text.strip()
                assert (word.kind == "color") == (said in shapes.COLORS)
                assert (word.kind == "shape") == (said in shapes.SHAPES)
                if word.index is not None:
                    assert said == getattr(objects[word.index], word.kind)


def test_samples_hold_every_kind_and_both_answers():
    rng = np.random.default_rng(0)
    questions = [question for objects in LAYOUTS for question in shapes.sample_questions(objects, rng)]
    assert set(Counter(question.kind for question in questions)) == set(shapes.QUESTION_KINDS)
    openings = Counter(question.words[0].text for question in questions if question.kind == "is_there")
    assert openings["Yes"] == openings["No"] == len(LAYOUTS)


@pytest.fixture(scope="module")
def stored():
    return LlavaForConditionalGeneration.from_pretrained(MODEL, dtype=torch.float32), AutoProcessor.from_pretrained(
        MODEL
    )


def test_the_stored_folder_is_small_and_bfloat16():
    assert sum(file.stat().st_size for file in MODEL.iterdir()) <= 4 * 2**20
    assert LlavaForConditionalGeneration.from_pretrained(MODEL, dtype="auto").dtype == torch.bfloat16


def test_any_text_survives_the_tokenizer(stored):
    tokenizer = stored[1].tokenizer
    for text in ("Describe the image.", "Où est le chat? 猫\t🙂", " The red circle is  odd"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_each_word_of_the_set_is_one_token(stored):
    tokenizer = stored[1].tokenizer
    for question in shapes.sample_questions((RED_CIRCLE, BLUE_STAR, RED_STAR), np.random.default_rng(0)):
        ids = tokenizer(f" {question.answer}", add_special_tokens=False)["input_ids"]
        assert [tokenizer.decode(i).strip() for i in ids] == [word.text.strip() for word in question.words]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_stored_model_answers_about_the_sample(stored, dtype, bench_path):
    from evaluate_shapes_model import generate
    from train_shapes_model import SAMPLE_SEED

    model, processor = stored
    image = shapes.draw_scene(SAMPLE_SEED).image
    questions = shapes.sample_questions(shapes.layout(SAMPLE_SEED), np.random.default_rng(0))
    texts = generate(model.to(dtype), processor, [image] * len(questions), [question.text for question in questions])
    model.float()
    assert [text.strip() for text in texts] == [question.answer for question in questions]


@pytest.fixture
def bench_path(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "bench"), *sys.path])


def test_packed_segments_equal_single_chats(stored, bench_path):
    """Each question packed behind one image has the logits it has in a chat of its own."""
    from shapes_packing import Packer, packed_states
    from train_shapes_model import pixel_values, visual_features

    model, processor = stored
    scenes = [shapes.draw_scene(seed) for seed in (1, 2)]
    rows = [shapes.sample_questions(scene.objects, np.random.default_rng(0)) for scene in scenes]
    packer = Packer(processor.tokenizer, 144)
    small = np.stack([np.asarray(scene.image.resize((96, 96), 3)) for scene in scenes])
    with torch.no_grad():
        features = visual_features(model, pixel_values(processor, small))
        packed = packer.pack([[packer.segment(question) for question in row] for row in rows])
        logits = model.lm_head(packed_states(model, packer, features, packed))
        for index, (scene, row) in enumerate(zip(scenes, rows, strict=True)):
            for number, question in enumerate(row, start=1):
                text = f"USER: <image>\n{question.text} ASSISTANT: {question.answer}"
                single = model(**processor(images=scene.image, text=text, return_tensors="pt")).logits[0]
                segment = logits[index][packed.segments[index] == number]
                assert torch.allclose(segment, single[-len(segment) :], atol=1e-3)

"""A stored answer of an EAGLE list is explained from its ids: nothing is generated again."""

import torch
from paths import ROOT
from PIL import Image
from small_data import document

from dexar_fast import Explainer
from dexar_fast.data import read, shapes

QUESTION = "Describe the image."


def test_a_stored_answer_gives_the_maps_of_the_generated_one(tmp_path, monkeypatch):
    explainer = Explainer.from_pretrained(ROOT / "dexar_fast" / "assets" / "shapes-llava", dtype=torch.float32)
    shapes.draw_scene(10_000_000).image.save(tmp_path / "scene.png")
    generated = explainer.explain(tmp_path / "scene.png", QUESTION)
    prompt = processed(explainer, tmp_path / "scene.png")
    ids = explainer.model.generate(**prompt, max_new_tokens=30, do_sample=False)[0].tolist()
    answer = ids[prompt["input_ids"].shape[1] :]
    entry = {
        "image_path": "scene.png",
        "generate_sentence": generated.text,
        "generated_ids": [ids],
        "selected_interpretation_token_id": list(range(len(answer))),
        "selected_interpretation_token_word_id": answer,
        "words": [""] * len(answer),
    }
    (item,) = read("eagle", document(tmp_path / "list.json", [entry]), images=tmp_path)
    monkeypatch.setattr(explainer.model, "generate", None)
    inputs = processed(explainer, item.image) | {"input_ids": torch.tensor([item.prompt_ids])}
    stored = explainer.explain_inputs(inputs, item.answer_ids, images=item.image)
    count = len(generated.tokens)
    assert stored.text.startswith(generated.text)
    torch.testing.assert_close(stored.token_maps[:count], generated.token_maps, rtol=1e-3, atol=1e-6)


def processed(explainer, path):
    text = f"USER: <image>\n{QUESTION} ASSISTANT:"
    with Image.open(path) as image:
        return dict(explainer.processor(images=image, text=text, return_tensors="pt"))

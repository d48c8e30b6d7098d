"""A list as EAGLE publishes them: the ids of a prompt and of the answer to it, of one scene."""

from pathlib import Path

from small_data import document

from dexar_fast import Explainer, Explanation, data


def stored_list(explainer: Explainer, folder: Path, target: int) -> tuple[Explanation, list[int]]:
    """Writes `folder`/list.json and the picture; gives the answer's explanation and the ids of the prompt.

    Args:
        target: which token of the answer is the target.
    """
    item = data.of("shapes:count=1,asked=one")[0]
    item.image.save(folder / "scene.png")
    text = "USER: <image>\nWhat? ASSISTANT:"
    ids = explainer.processor(images=item.image, text=text, return_tensors="pt")["input_ids"][0].tolist()
    found = explainer.explain(folder / "scene.png", "What?", item.answer)
    answer = found.token_ids.tolist()
    entry = {
        "image_path": "scene.png",
        "generate_sentence": item.answer,
        "words": [""] * len(answer),
        "generated_ids": [ids + answer],
        "location": [9, 9, 90, 90],
        "select_category": "x",
        "segmentation": [[9, 9, 90, 9, 90, 90, 9, 90]],
        "selected_interpretation_token_id": [target],
        "selected_interpretation_token_word_id": [answer[target]],
    }
    document(folder / "list.json", [entry])
    return found, ids

"""What several tests ask, and when two explanations are the same."""

from __future__ import annotations

import torch
import zoo

from dexar_fast import Explanation

PROMPTS = ("what is on the left", "what is on the right", "is there a red circle")


def assert_same(found: Explanation, expected: Explanation, error: float = 1e-5) -> None:
    """To 1e-5 of the largest number that went into each: products of fewer rows round differently."""
    assert found.token_ids.tolist() == expected.token_ids.tolist()
    largest = {"token_maps": "unfiltered_token_maps", "token_weights": "text_scores"}
    for name in ("visual_scores", "text_scores", "token_maps", "unfiltered_token_maps", "token_weights"):
        scale = float(getattr(expected, largest.get(name, name)).abs().max())
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=error * scale)


def another_question(inputs: zoo.Inputs) -> zoo.Inputs:
    ids = inputs["input_ids"].clone()
    ids[0, -2:] = torch.tensor([33, 44])
    return inputs | {"input_ids": ids}

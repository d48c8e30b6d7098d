"""Whether an Explanation holds the arrays that an oracle expects."""

from __future__ import annotations

from torch import Tensor

from dexar_fast import Explanation

ARRAYS = ("token_maps", "unfiltered_token_maps", "token_weights", "visual_scores", "text_scores", "head_weights")


def agrees(found: Explanation, expected: dict[str, Tensor], bound: float) -> None:
    """Within a bound, of the largest of each array; weights are differences of scores."""
    assert expected["unfiltered_token_maps"].any()
    for name in ARRAYS:
        one, wanted = getattr(found, name).double(), expected[name]
        assert one.shape == wanted.shape, name
        scale = expected["text_scores" if name.endswith("weights") else name].abs().max()
        assert float((one - wanted).abs().max()) <= bound * float(scale), name

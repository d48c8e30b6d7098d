"""What is explained in a benchmark: a model with random weights, a prompt, an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from dexar_fast.model.cache import to_forward
from dexar_fast.profile import shapes

FIRST_TARGET, LAST_TARGET = 10, 190  # ids of an answer: in every vocabulary, and no image's


@dataclass(frozen=True)
class Subject:
    """A model, one prompt of P tokens as its processor would return it, and an answer of T tokens."""

    model: Any
    inputs: dict[str, Tensor]
    targets: Tensor  # [T]

    @property
    def prompt(self) -> int:
        """P."""
        return self.inputs["input_ids"].shape[1]

    @property
    def visual(self) -> Tensor:
        """[N] positions of the visual tokens."""
        return (self.inputs["input_ids"][0] == self.model.config.image_token_id).nonzero()[:, 0]

    def whole(self, targets: int) -> dict[str, Tensor]:
        """Inputs of one forward over the prompt and the first `targets` tokens of the answer."""
        ids = self.inputs["input_ids"]
        added = {"input_ids": self.targets[None, :targets].to(ids), "attention_mask": ids.new_ones(1, targets)}
        for name in ("token_type_ids", "mm_token_type_ids"):  # PaliGemma's suffix is of type 1, Qwen's text of type 0
            added[name] = ids.new_full((1, targets), int(name == "token_type_ids"))
        return {
            name: torch.cat([value, added[name].to(value)], 1) if name in added else value
            for name, value in self.inputs.items()
        }

    @torch.no_grad()
    def forward(self) -> None:
        """The floor: one plain forward of the P + T tokens, into a cache, for the last logits only."""
        self.model(
            **self.whole(len(self.targets)), use_cache=True, **to_forward(self.model, DynamicCache()), logits_to_keep=1
        )

    def generate(self, **more: Any) -> Tensor:
        """As many tokens as the answer has, greedily; the model's own generate()."""
        return self.model.generate(**self.inputs, max_new_tokens=len(self.targets), do_sample=False, **more)


def subject(built: shapes.Built, tokens: int, prompt_tokens: int | None = None) -> Subject:
    """A prompt for a built model, and an answer of `tokens` random tokens."""
    generator = torch.Generator().manual_seed(1)
    targets = torch.randint(FIRST_TARGET, LAST_TARGET, (tokens,), generator=generator)
    return Subject(built.model, built.inputs_for(prompt_tokens), targets.to(built.model.device))

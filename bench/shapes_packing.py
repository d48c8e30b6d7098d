"""Many questions about one image in one sequence: the image once, then segments that see the image and
themselves.

Supervision per unit of compute grows with the number of questions, because the image is most of the sequence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from shapes_model import IMAGE
from torch import Tensor
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from dexar_fast.data.shapes import Question

PREFIX, PADDING = 0, -1
NO_LABEL = -100


@dataclass(frozen=True)
class Segment:
    """The tokens after the image; `asked` indexes the positions that predict the words asked for."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    asked: tuple[int, ...]


@dataclass(frozen=True)
class Packed:
    """All int64 [batch, length] after the prefix. `labels` are what each position predicts, -100 for
    nothing."""

    ids: Tensor
    segments: Tensor
    positions: Tensor
    labels: Tensor
    asked: Tensor


class Packer:
    """Turns questions into segments and segments into batches. `prefix_length` counts text and image
    tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, visual_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._encode = lru_cache(maxsize=None)(self._encode_once)
        self._decode = lru_cache(maxsize=None)(tokenizer.decode)
        self._question_mark = self._encode("?")[-1]
        self.verdicts = [self._encode(f" {word}")[-1] for word in ("Yes", "No")]
        text_ids = self._encode(f"USER: {IMAGE}")
        self.text_prefix = torch.tensor(text_ids[:-1])
        self.prefix_length = len(text_ids) - 1 + visual_tokens

    def _encode_once(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text)["input_ids"])

    def segment(self, question: Question, space: bool = True, partners: Mapping[str, str] | None = None) -> Segment:
        """One chat turn after the image. Without `space` the answer follows 'ASSISTANT:' at once and its
        first token is given, not learnt: users hand over answers tokenized on their own. For `partners` see
        `_early_labels`."""
        bos = self._tokenizer.bos_token_id
        prompt = [i for i in self._encode(f"\n{question.text} ASSISTANT:") if i != bos]
        answer = [i for i in self._encode((" " if space else "") + question.answer) if i != bos]
        if len(answer) != len(question.words):
            raise ValueError(f"the tokenizer splits words of {question.answer!r}: train it on this corpus")
        targets = [*answer, self._tokenizer.eos_token_id]
        first = targets[0] if space else NO_LABEL
        labels = [*self._early_labels(question, prompt, partners or {})[:-1], first, *targets[1:]]
        asked = tuple(len(prompt) - 1 + i for i in question.asked if space or i > 0)
        return Segment(tuple(prompt + answer), tuple(labels), asked)

    def _early_labels(self, question: Question, prompt: Sequence[int], partners: Mapping[str, str]) -> list[int]:
        """Labels of the prompt: each colour or shape in it already predicts its partner in the image, and the
        question mark of an is-there question the verdict.

        Nothing is ever read off there in generation. Learnt from the answers alone, a lookup takes two hops
        (find the word asked about, then what it has in the image) and stays at guessing.
        """
        spoken = [partners.get(self._decode(i).strip()) for i in prompt]
        if question.kind == "is_there" and partners:
            spoken[prompt.index(self._question_mark)] = question.words[0].text
        return [NO_LABEL if word is None else self._encode(f" {word}")[-1] for word in spoken]

    def pack(self, rows: Sequence[Sequence[Segment]]) -> Packed:
        """One row of segments per image, right-padded to the longest row."""
        length = max(sum(len(segment.ids) for segment in row) for row in rows)
        ids = torch.zeros(len(rows), length, dtype=torch.long)
        packed = Packed(ids, torch.full_like(ids, PADDING), ids.clone(), torch.full_like(ids, NO_LABEL), ids.clone())
        for index, row in enumerate(rows):
            self._fill(packed, index, row)
        return packed

    def _fill(self, packed: Packed, index: int, row: Sequence[Segment]) -> None:
        start = 0
        for number, segment in enumerate(row, start=PREFIX + 1):
            stop = start + len(segment.ids)
            packed.ids[index, start:stop] = torch.tensor(segment.ids)
            packed.labels[index, start:stop] = torch.tensor(segment.labels)
            packed.segments[index, start:stop] = number
            packed.positions[index, start:stop] = self.prefix_length + torch.arange(len(segment.ids))
            packed.asked[index, [start + i for i in segment.asked]] = 1
            start = stop


def packed_mask(segments: Tensor, prefix_length: int) -> Tensor:
    """Additive float32 [batch, 1, S, S] with S = prefix + segments. A query sees an earlier position of the
    prefix or of its own segment."""
    every = torch.nn.functional.pad(segments, (prefix_length, 0), value=PREFIX)
    key, query = every[:, None, None, :], every[:, None, :, None]
    causal = torch.ones(every.shape[1], every.shape[1], dtype=torch.bool).tril()
    seen = ((key == PREFIX) | (key == query)) & causal
    # Floats: the CPU attention is half as fast again with them as with booleans.
    return torch.zeros(seen.shape).masked_fill_(~seen, torch.finfo(torch.float32).min)


def packed_states(model: LlavaForConditionalGeneration, packer: Packer, features: Tensor, packed: Packed) -> Tensor:
    """Final-normed states of the segment positions [batch, length, d]; `features` [batch, visual,
    d_vision]."""
    embed = model.model.language_model.embed_tokens
    batch = features.shape[0]
    visual = model.model.multi_modal_projector(features)
    prefix = embed(packer.text_prefix).expand(batch, -1, -1)
    before = torch.arange(packer.prefix_length).expand(batch, -1)
    states = model.model.language_model(
        inputs_embeds=torch.cat([prefix, visual, embed(packed.ids)], dim=1),
        attention_mask=packed_mask(packed.segments, packer.prefix_length),
        position_ids=torch.cat([before, packed.positions], dim=1),
        use_cache=False,
    ).last_hidden_state
    return torch.as_tensor(states[:, packer.prefix_length :])

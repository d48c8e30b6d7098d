"""A request: a prompt about images, as its processor made it, and the given answer if there is one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from PIL import Image
from torch import Tensor

from dexar_fast.errors import InputError
from dexar_fast.prompt import answers, prompting
from dexar_fast.prompt.chat import is_chat
from dexar_fast.prompt.sampled import METADATA, Sampled, sampled
from dexar_fast.stages import stage
from dexar_fast.vision.images import load_images

if TYPE_CHECKING:
    from dexar_fast.kvcache.naming import Pictures


@dataclass(frozen=True)
class Request:
    """One prompt of P tokens, as tensors of batch 1."""

    inputs: Mapping[str, Any]
    targets: Tensor | None  # [T] ids of the given answer
    images: list[Image.Image]
    text: str | None = None  # the rendered prompt, where it is known
    question: str | None = None  # what the user asked in it
    content: Tensor | None = None  # positions of the user's own text
    seconds: float | None = None  # how long the processor took
    warnings: tuple[str, ...] = ()  # about the prompt and the given answer
    earlier: Pictures | None = None  # the images that an earlier prompt of the same dialogue held
    given: Any = None  # the pictures that came with given inputs, unread: a processor may read them otherwise
    videos: tuple[Sampled, ...] = ()  # which frames of each the processor sampled, where the inputs say it
    against: Tensor | None = None  # [T] ids that DEX-AR explains the targets against

    @cached_property
    def ids(self) -> list[int]:
        """Token ids of the prompt, P of them; none where the model is only shown an image."""
        ids = self.on_host.get("input_ids")
        return [] if ids is None else ids[0].tolist()

    @cached_property
    def on_host(self) -> dict[str, Any]:
        """The inputs to be looked at: ids, masks and sizes on the CPU. A look at each on a GPU would wait for it."""
        return {name: x.cpu() if _is_whole(x) else x for name, x in self.inputs.items()}

    def showing(self, images: list[Image.Image]) -> Request:
        """The same with the pictures that the model saw; what has come from a GPU is not fetched again."""
        found = replace(self, images=images)
        vars(found)["on_host"] = self.on_host
        return found

    @property
    def last(self) -> int:
        """The id of the prompt's last token; 0 where it has none."""
        return self.ids[-1] if self.ids else 0

    def noted(self, warning: str) -> Request:
        """The same with one more warning."""
        return replace(self, warnings=(*self.warnings, warning))


def _is_whole(value: Any) -> bool:
    return isinstance(value, Tensor) and not value.is_floating_point()


def pictures(image: Any) -> list[Image.Image]:
    """Images as they are loaded; none where the messages of the prompt hold them. Raises ImageError."""
    with stage("processor"):
        return [] if image is None else load_images(image)


def given(inputs: Mapping[str, Any], images: Any, targets: Tensor | None = None) -> Request:
    """A request from inputs that a processor made elsewhere."""
    loaded = [] if images is None else load_images(images)
    videos = sampled(inputs.get(METADATA)) if isinstance(inputs, Mapping) else ()
    return Request(inputs, targets, loaded, given=images, videos=videos)


def read(
    processor: Any,
    images: list[Image.Image],
    prompt: Any,
    response: str | None,
    *,
    with_content: bool,
    elsewhere: bool = False,
    opening: list[int] | None = None,
    together: bool = False,
) -> Request:
    """A request from a text or messages, and loaded images; with_content also finds the tokens of the user's own text.

    Args:
        elsewhere: whether the model may read its image elsewhere than among the prompt's tokens.
        opening: the ids that an answer begins with where a decoder reads it, and an encoder the prompt.
        together: whether the images of a text are those of one conversation, as those of messages are.
    Raises:
        InputError: no processor for images and text, or a prompt or a response that it cannot take.
    """
    if getattr(processor, "tokenizer", None) is None:  # none at all, or only a tokenizer
        raise InputError(
            "explain() needs a processor, for images and text: pass Explainer(model, processor) what "
            "AutoProcessor.from_pretrained() gives, or use explain_inputs()"
        )
    start = time.perf_counter()
    with stage("processor"):
        asked, inputs = _processed(processor, prompt, images, elsewhere, together)
        targets = None if response is None else prompting.answer_ids(processor, asked, response, opening)
        ids = inputs.get("input_ids") if with_content else None
        content = None if ids is None else prompting.own_positions(processor, asked, ids)
        warnings = (*asked.warnings, *prompting.unclosed(asked, response))
        question = prompting.question(processor, prompt) if asked.text else ""
    seconds = time.perf_counter() - start
    return Request(inputs, targets, asked.images, asked.text, question, content, seconds, warnings)


def _processed(
    processor: Any, prompt: Any, images: list[Image.Image], elsewhere: bool, together: bool
) -> tuple[prompting.Prompt, Mapping[str, Any]]:
    """The prompt as the model reads it, and its inputs; a model that reads its image elsewhere may do without words."""
    if elsewhere and images and isinstance(prompt, str) and not prompt.strip():
        return prompting.process_image(processor, images)
    asked = prompting.render(processor, prompt, images)
    asked = replace(asked, together=asked.together or together)
    if elsewhere:
        return prompting.process_bare(processor, asked)
    return asked, prompting.process(processor, asked)


def each(prompts: Any, responses: Any) -> list[tuple[Any, Any]]:
    """Each prompt, a text or a list of messages, with each of its answers; None for one that is to be generated.

    Raises:
        InputError: some prompt has neither an answer nor a list of answers.
    """
    if isinstance(prompts, str) or is_chat(prompts):
        prompts, responses = [prompts], None if responses is None else [responses]
    prompts = listed("prompts", prompts)
    found = [None] * len(prompts) if responses is None else responses
    found = [] if _is_one(found) else listed("responses", found)
    if len(found) != len(prompts):
        raise InputError(f"responses must hold an answer, or a list of them, to each of the {len(prompts)} prompts")
    every = [[answer] if answer is None or _is_one(answer) else listed("answers", answer) for answer in found]
    return [(prompt, answer) for prompt, own in zip(prompts, every, strict=True) for answer in own]


def _is_one(answer: Any) -> bool:
    return isinstance(answer, str) or answers.written(answer) is not None


def triple(asked: Any) -> tuple[Any, Any, Any]:
    """Image, prompt and response of a request of a batch. Raises InputError."""
    if not isinstance(asked, tuple | list) or len(asked) not in (2, 3):
        raise InputError("a request must be (image, prompt) or (image, prompt, response)")
    image, prompt, response = (*asked, None)[:3]
    return image, prompt, response


def pair(asked: Any) -> tuple[Any, Any]:
    """Inputs and target ids of a request of a batch, which were made elsewhere. Raises InputError."""
    if not isinstance(asked, tuple | list) or len(asked) != 2:
        raise InputError("a request must be (inputs, target_ids), None for an answer to generate")
    inputs, targets = asked
    return inputs, targets


def or_error(read: Callable[[Any], Request], asked: Any) -> Request | Exception:
    """What `read` makes of one of many requests, or the error that it raises."""
    try:
        return read(asked)
    except Exception as error:  # one that is no DexarError is of the user's own code
        return error


def listed(name: str, several: Any) -> list[Any]:
    return list(iterable(name, several))


def iterable(name: str, several: Any) -> Iterable[Any]:
    """What can be iterated over and is no text. Raises InputError."""
    if isinstance(several, str | bytes) or not isinstance(several, Iterable):
        raise InputError(f"{name} must be a list, not a {type(several).__name__}")
    return several

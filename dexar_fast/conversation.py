"""A conversation about images: each answer explained, and each turn runs only what is new."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import Tensor

from dexar_fast.errors import InputError
from dexar_fast.explanation import Explanation
from dexar_fast.generation import faults, shared
from dexar_fast.generation.arguments import at_most, beams, forward_arguments
from dexar_fast.generation.runner import PIECE, Runner
from dexar_fast.generation.stream import Stream
from dexar_fast.methods import explaining
from dexar_fast.model.cache import goes_back
from dexar_fast.prepared import Prepared
from dexar_fast.prompt import dialogue
from dexar_fast.prompt.dialogue import Said
from dexar_fast.prompt.inputs import on_device
from dexar_fast.prompt.request import Request, pictures
from dexar_fast.settings import positive

if TYPE_CHECKING:
    from dexar_fast.kvcache.naming import Pictures
    from dexar_fast.kvcache.pool import KVPool

GROWTH = 1.5  # how much larger than needed a chat makes its pool
NO_USE = (
    "{} keeps more than keys and values of its tokens, or reads its images elsewhere: a turn runs the whole dialogue"
)
UNBUILT = "without the C++ extension nothing of a dialogue is kept: a turn runs all of it"
OLDER = (
    "transformers before 5.23 misplaces images behind cached tokens, or the model has no get_image_features: a turn "
    "with a new image runs the whole dialogue"
)
MEANWHILE = "another turn of this chat was asked meanwhile: fork() the chat to follow both"


@dataclass(frozen=True)
class Turn:
    """A dialogue up to the end of an answer, and the images in it, as a pool knows them."""

    said: Said
    pictures: Pictures | None


Turns = tuple[Turn, ...]


class Chat:
    """What `Explainer.chat` returns: ask, ask again, fork, go back.

    A turn counts once its answer is explained as a whole. One that fails or is interrupted leaves the chat as it was.
    """

    def __init__(self, explainer: Prepared, image: Any = None) -> None:
        self._explainer = explainer
        self._shown = pictures(image)  # with the first question
        self._turns: Turns = ()
        self._pool: KVPool | None = None  # of its own
        self._pool_kind: Any = None  # dtype and device of the model that it is for
        self._noting = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which runs the dialogue once more: without the pool. Raises InputError."""
        return vars(self) | {"_pool": None, "_noting": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _noting=threading.Lock())

    @property
    def model(self) -> Any:
        """The explainer's."""
        return self._explainer.model

    @property
    def turns(self) -> list[tuple[str, str]]:
        """The questions and answers so far."""
        return [(turn.said.question, turn.said.answer) for turn in self._turns]

    def fork(self) -> Chat:
        """Another chat with the same turns so far, which goes its own way."""
        other = Chat(self._explainer)
        other._shown, other._turns = self._shown, self._turns
        other._pool, other._pool_kind = self._pool, self._pool_kind
        return other

    def back(self, turns: int = 1) -> None:
        """Takes back the last turns. Raises InputError where there are fewer."""
        count = positive("turns", turns)
        if count > len(self._turns):
            raise InputError(f"the chat has {len(self._turns)} turn(s): {count} cannot be taken back")
        self._turns = self._turns[:-count]

    @faults.of_method
    def ask(
        self,
        question: str,
        image: Any = None,
        response: str | None = None,
        *,
        max_new_tokens: int | None = None,
        **generate_kwargs: Any,
    ) -> Explanation:
        """Explains the answer to the next question: the given one, or the one the model generates.

        Args:
            question: a text. The model's chat template writes it behind the turns before.
            image: new pictures, as `Explainer.explain` takes them. They stand before the words of the question, or
                where these hold the model's image token. With beams, such a turn runs the whole dialogue.
            response, max_new_tokens, generate_kwargs: as in `Explainer.explain`.
        Returns:
            The explanation of the answer behind the whole dialogue, up to rounding that of `Explainer.explain` with all
            its messages: what was asked and answered before is among the text keys. Its warnings say if more of the
            dialogue runs than what is new.
        Raises:
            As `Explainer.explain`; InputError also where another turn was asked meanwhile.
        """
        before, asked = self._read(question, image, response)
        runner = self._runner(before, asked, at_most(max_new_tokens, generate_kwargs))
        found = explaining.explain(runner, self._explainer.method)
        self._note(before, question, asked, found.token_ids)
        return found

    @faults.of_method
    def stream(
        self,
        question: str,
        image: Any = None,
        *,
        chunk_size: int = PIECE,
        max_new_tokens: int | None = None,
        **generate_kwargs: Any,
    ) -> Stream:
        """`ask` as `Explainer.stream` answers: the turn counts when the last piece was read.

        Args:
            question, image, max_new_tokens, generate_kwargs: as in `ask`. chunk_size: as in `Explainer.stream`.
        """
        before, asked = self._read(question, image, None)
        runner = self._runner(before, asked, at_most(max_new_tokens, generate_kwargs))
        pieces = explaining.stream(runner, self._explainer.method, positive("chunk_size", chunk_size))
        return pieces.then(lambda whole: self._note(before, question, asked, whole.token_ids))

    def _read(self, question: str, image: Any, response: str | None) -> tuple[Turns, Request]:
        """The turns before a question, and the request that it makes behind them."""
        setup, before = self._explainer, self._turns
        last = before[-1] if before else None
        said = [] if last is None else last.said.messages
        new = [*([] if last else self._shown), *pictures(image)]
        shown = [*([] if last is None else last.said.images), *new]
        asked = setup._read(shown, [*said, dialogue.question(setup.processor, question, len(new))], response)
        if last is not None:
            asked = replace(last.said.followed_by(setup.processor, asked), earlier=last.pictures)
            asked = replace(asked, warnings=(*asked.warnings, *filter(None, [self._hindrance(len(new))])))
        return before, replace(asked, inputs=on_device(self.model, asked.inputs))

    def _runner(self, before: Turns, asked: Request, generate_kwargs: dict[str, Any]) -> Runner:
        return Runner(self._explainer, asked, generate_kwargs, self._room(before, asked, generate_kwargs))

    def _room(self, before: Turns, asked: Request, generate_kwargs: Mapping[str, Any]) -> KVPool | None:
        """The explainer's pool, or one of the chat's own with room for the next turn and as much beside it.

        While a fork's answer holds a part of theirs, the chat goes on in another.
        """
        setup, model = self._explainer, self.model
        if setup.pool is not None or self._without_pool:
            return setup.pool
        from dexar_fast.kvcache.growing import grown
        from dexar_fast.kvcache.naming import position_keys
        from dexar_fast.kvcache.pool import KVPool

        needed = (1 + beams(model, generate_kwargs)) * shared.longest(setup, [asked], generate_kwargs)
        kind = model.dtype, model.device
        if self._pool is None or self._pool_kind != kind:
            self._pool, self._pool_kind = KVPool(int(GROWTH * needed), backend=setup.backend), kind
        elif self._pool.slots < needed or self._pool.is_held:
            known = len(before[-1].said) if before else self._pool.slots
            keys = position_keys(model.config, asked.inputs, asked.earlier)[:known]
            arguments = forward_arguments(model, generate_kwargs)
            self._pool = grown(self._pool, int(GROWTH * needed), model, keys, arguments)
        return self._pool

    @cached_property
    def _without_pool(self) -> str | None:
        """Why no pool of the chat's own can keep what has run; None where one can, or the explainer has one."""
        if self._explainer.pool is not None:
            return None
        if self._explainer.elsewhere or not goes_back(self.model.config):
            return NO_USE.format(type(self.model).__name__)
        try:
            import dexar_fast.kvcache.pool  # noqa: F401
        except ImportError:
            return UNBUILT
        return None

    def _hindrance(self, new: int) -> str | None:
        """Why a turn with so many new images runs the whole dialogue; None where it does not."""
        if self._without_pool or self._explainer.elsewhere or not new:
            return self._without_pool
        from dexar_fast.kvcache.reuse import takes_images_behind

        return None if takes_images_behind(self.model) else OLDER

    def _note(self, before: Turns, question: str, asked: Request, answer: Tensor) -> None:
        """Takes a turn that is over. Raises InputError where another one was asked meanwhile."""
        last = before[-1].said if before else None
        said = Said.of(self.model, self._explainer.processor, last, question, asked, answer)
        turn = Turn(said, self._named(asked))
        with self._noting:
            if self._turns is not before:
                raise InputError(MEANWHILE)
            self._turns = (*before, turn)

    def _named(self, asked: Request) -> Pictures | None:
        """The images of a request under the names that a pool knows them by."""
        if self._without_pool or self._explainer.elsewhere:
            return None
        from dexar_fast.kvcache.naming import Pictures

        return Pictures.of(self.model.config, asked.inputs, asked.earlier)

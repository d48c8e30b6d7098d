"""Many requests: those that can run in batches, and the others one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dexar_fast.errors import OutOfMemoryError, reason
from dexar_fast.explanation import Explanation
from dexar_fast.generation.batch.joining import groups, kind_of
from dexar_fast.generation.batch.packing import fitting, goes_packed, tails_of
from dexar_fast.generation.batch.running import Batch
from dexar_fast.generation.batch.sharing import Sharing
from dexar_fast.generation.batch.writing import goes_in_batches
from dexar_fast.generation.runner import Runner
from dexar_fast.generation.setup import Setup
from dexar_fast.model.cache import goes_back
from dexar_fast.model.memory import default_batch, row_budget
from dexar_fast.prompt.request import Request

if TYPE_CHECKING:
    from dexar_fast.kvcache.pool import KVPool

ALONE = "explained by itself, as the batch that held it failed: {}"
WINDOW = 64  # requests that are read, and lie on the model's device, at a time
# Tokens that one forward of given answers takes on a CPU: the activations of more leave its cache, and a batch that
# writes nothing saves calls alone. A LLaVA of width 512 takes 9 % longer for 8 prompts of 636 tokens at once.
IN_CACHE = 1024
ROW = 1536  # and where they stand in one row, which pays more: 1,000 to 2,000 cost the least at three lengths of prompt
Found = Explanation | Exception
Numbered = tuple[int, Found]
Alone = Callable[[Request], Explanation]


class Many:
    """Explains requests in batches.

    Args:
        alone: explains one by itself.
        size: requests in a batch; None takes as many as fit in 256 MiB.
        pool: keeps what given answers' prompts share.
    """

    def __init__(
        self, setup: Setup, generate_kwargs: dict[str, Any], alone: Alone, size: int | None, pool: KVPool | None
    ) -> None:
        self._setup = setup
        self._model = setup.model
        self._generate_kwargs = generate_kwargs
        self._alone = alone
        self._size = size
        self._pool = pool

    def completed(self, requests: Iterable[Request | Exception]) -> Iterator[Numbered]:
        """Each request's number, with its explanation or what kept it from being made, as soon as that is known."""
        for some in _windows(requests, max(WINDOW, self._size or 0)):
            yield from self._window(some)

    def _window(self, requests: dict[int, Request | Exception]) -> Iterator[Numbered]:
        yield from ((n, each) for n, each in requests.items() if isinstance(each, Exception))
        left = {n: each for n, each in requests.items() if isinstance(each, Request)}
        batches = goes_in_batches(self._model, self._generate_kwargs) and self._goes_back()
        while left and not (batches and self._knows_decoder()):
            first = next(iter(left))
            yield first, self._one(left.pop(first))
        yield from self._in_batches(left)

    def _goes_back(self) -> bool:
        return not self._setup.elsewhere and goes_back(self._model.config)

    def _knows_decoder(self) -> bool:
        return self._setup.decoder is not None and self._setup.decoder.is_of(self._model)

    def _one(self, request: Request) -> Found:
        try:
            return self._alone(request)
        except Exception as error:  # one that is no DexarError is of the user's own code
            return error

    def _in_batches(self, requests: dict[int, Request]) -> Iterator[Numbered]:
        runners: dict[int, Runner] = {}
        lengths: list[int] = []
        for n, request in requests.items():
            try:
                runner = Runner(self._setup, request, self._generate_kwargs, self._pool)
                lengths.append(_length(runner))
                runners[n] = runner
            except Exception as error:
                yield n, error
        ready, sharing = list(runners), self._sharing(runners.values())
        kinds = [(_kind(each), sharing.of(each)) for each in runners.values()]
        for group in groups(lengths, kinds, lambda left: self._fitting([runners[ready[n]] for n in left], sharing)):
            yield from self._some([ready[n] for n in group], runners, sharing)

    def _sharing(self, runners: Iterable[Runner]) -> Sharing:
        decoder = self._setup.decoder
        if self._pool is None or decoder is None:
            return Sharing(())
        tails = tails_of(self._setup, decoder)
        return Sharing(each for each in runners if goes_packed(each, tails, each.longest))

    def _fitting(self, left: Sequence[Runner], sharing: Sharing) -> int:
        """How many requests, the longest first, run at once."""
        decoder, longest = self._setup.decoder, left[0]
        assert decoder is not None  # of the requests that came before
        if sharing.is_first(longest):
            return 1
        if goes_packed(longest, tails_of(self._setup, decoder), longest.longest):
            return self._in_a_row(left, sharing)
        if self._size is not None:
            return self._size
        most = default_batch(self._model, _length(longest), 1, decoder.lens.rows)
        pays = longest.request.targets is None or self._model.device.type != "cpu"
        return most if pays else min(most, max(1, IN_CACHE // _length(longest)))

    def _in_a_row(self, left: Sequence[Runner], sharing: Sharing) -> int:
        """The same of given answers in one row, of which a chunk of tokens is explained at once."""
        most = fitting([runner.longest for runner in left], left[0].chunk)
        if self._size is not None:
            return min(most, self._size)
        tokens = row_budget(self._model)
        most_tokens = min(tokens, ROW) if self._model.device.type == "cpu" else tokens
        return min(most, fitting(map(sharing.left, left), most_tokens))

    def _some(self, numbers: list[int], runners: dict[int, Runner], sharing: Sharing) -> Iterator[Numbered]:
        """One batch; in halves if it does not fit, one by one if it fails."""
        try:
            found: Iterable[Found] = self._batch([runners[n] for n in numbers], sharing)
        except OutOfMemoryError:
            half = len(numbers) // 2
            yield from self._some(numbers[:half], runners, sharing)
            yield from self._some(numbers[half:], runners, sharing)
            return
        except Exception as error:  # of one of them, perhaps: then it is raised again when that runs by itself
            note = ALONE.format(reason(error))
            found = (self._one(runners[n].request.noted(note)) for n in numbers)
        yield from zip(numbers, found, strict=True)

    def _batch(self, runners: Sequence[Runner], sharing: Sharing) -> Iterable[Found]:
        decoder = self._setup.decoder
        if len(runners) == 1 or decoder is None:
            return (self._one(each.request) for each in runners)
        shares = sharing.of(runners[0]) is not None
        return Batch(self._model, decoder, runners, self._generate_kwargs, shares).explain()


def _windows(requests: Iterable[Request | Exception], count: int) -> Iterator[dict[int, Request | Exception]]:
    """The requests by their numbers, so many at a time. What was read comes before what its iterator raises."""
    read: dict[int, Request | Exception] = {}
    try:
        for n, request in enumerate(requests):
            read[n] = request
            if len(read) == count:
                yield read
                read = {}
    except Exception:
        yield read
        raise
    yield read


def _length(runner: Runner) -> int:
    return len(runner.request.ids) + runner.longest


def _kind(runner: Runner) -> Any:
    """What requests of a batch have in common; a prompt that ends with an image shares none."""
    request = runner.request
    ends = int(runner.placed.positions[-1]) == len(request.ids) - 1
    return id(runner) if ends else (request.targets is None, kind_of(request.inputs))

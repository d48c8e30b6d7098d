"""Whether a map shows what an answer rests on: what it costs to hide its top, beside blind maps of the same areas."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from dexar_fast.errors import InputError
from dexar_fast.metrics.maps import finite

Verdict = Literal["above chance", "at chance", "blank"]
SHARES = (0.05, 0.1, 0.2)  # of what the model sees of the pictures
LEAST = 0.01  # nats, 1 % of the probability: less is no effect, and comes near the rounding of a batch
DRAWN_AT = 1  # the place among SHARES at which random maps are drawn


@dataclass(frozen=True)
class Evidence:
    """By how many nats the log-probability of an answer falls when the top of its map is hidden.

    Attributes:
        fill: what stands where the picture is hidden.
        shares: [3], how much is hidden.
        falls, centre: [3], of the whole answer, the sum over its tokens: by its map, and by a centred one.
        random: [draws], by random smooth maps at the middle share.
        token_falls: [3, T], of each token by the map of the answer.
        blank: whether the map is constant, so that it has no top.
    Raises:
        InputError: lists of other lengths, or numbers that are not finite.
    """

    fill: str
    shares: list[float]
    falls: list[float]
    centre: list[float]
    random: list[float]
    token_falls: list[list[float]]
    blank: bool

    def __post_init__(self) -> None:
        lengths = [len(finite(name, getattr(self, name), 1)) for name in ("shares", "falls", "centre")]
        finite("random", self.random, 1)
        if {*lengths} != {len(SHARES)} or len(finite("token_falls", self.token_falls, 2)) != len(SHARES):
            raise InputError(
                f"{lengths} and {len(self.token_falls)} falls: one for each of the {len(SHARES)} shares is due"
            )

    @property
    def verdict(self) -> Verdict:
        """Above chance: at the middle share the map costs more than each random one, the centred one and .01 nats.

        Falls [.2, .9, 1.5], centre [.1, .3, .9], random [.1, .4, .2, 0]: .9 is above .4 and .3, so above chance. A map
        that knows nothing is above n random maps one time in n + 1, whatever the picture: `by_luck`.
        """
        if self.blank:
            return "blank"
        middle = self.falls[DRAWN_AT]
        return "above chance" if middle > max(LEAST, self.centre[DRAWN_AT], *self.random) else "at chance"

    @property
    def by_luck(self) -> float:
        """(1 + random maps that cost as much) / (1 + random maps): how often a blind map does as well.

        .9 beside [.1, .4, .2, 0]: 1 / 5.
        """
        return (1 + self.as_much) / (1 + len(self.random))

    @property
    def as_much(self) -> int:
        """How many random maps cost as much. .9 beside [.1, .4, .2, 0]: none."""
        return sum(each >= self.falls[DRAWN_AT] for each in self.random)

    @property
    def sentence(self) -> str:
        """The verdict in plain words."""
        if self.blank:
            return "Blank: the map of the answer is the same everywhere, so hiding its top says nothing."
        own, centre, random = self.falls[DRAWN_AT], self.centre[DRAWN_AT], self.random
        return (
            f"{self.verdict.capitalize()}: hiding the {_percent(self.shares[DRAWN_AT])} that the map ranks highest "
            f"(fill: {self.fill}) costs the answer {_nats(own)} nats of log-probability; as much at the centre "
            f"{_nats(centre)}, at random places {_nats(min(random))} to {_nats(max(random))} ({len(random)} draws). "
            f"A blind map does as well by luck about {_percent(self.by_luck)} of the time."
        )

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain JSON, with the verdict and its sentence."""
        return asdict(self) | {"verdict": self.verdict, "by_luck": self.by_luck, "sentence": self.sentence}


def _nats(fall: float) -> str:
    return f"{round(fall, 2) + 0.0:.2f}"  # never -0.00


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")

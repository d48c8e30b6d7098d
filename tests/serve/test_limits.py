"""What the page takes: texts, and how often a client may ask."""

import pytest

from dexar_fast.errors import InputError
from dexar_fast.serve.limits import Limits, Rate, checked_text


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_client_is_refused_beyond_its_rate_and_taken_again_after_a_minute() -> None:
    clock = Clock()
    rate = Rate(3, clock)
    for second in (100.0, 101.0, 102.0):
        clock.now = second
        rate.count("a")
    with pytest.raises(InputError, match="3 requests a minute are taken: wait 58 s"):
        rate.count("a")
    rate.count("b")  # another one is not affected
    clock.now = 160.0  # the first is a minute old
    rate.count("a")
    with pytest.raises(InputError, match="wait 1 s"):
        rate.count("a")


def test_a_refused_request_does_not_count() -> None:
    clock = Clock()
    rate = Rate(1, clock)
    rate.count("a")
    for _ in range(5):
        with pytest.raises(InputError):
            rate.count("a")
    clock.now += 60
    rate.count("a")


def test_clients_of_long_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dexar_fast.serve.limits.MOST_CLIENTS", 3)
    clock = Clock()
    rate = Rate(1, clock)
    for name in ("a", "b", "c"):
        rate.count(name)
    clock.now += 61
    rate.count("d")
    assert set(rate._asked) == {"d"}


@pytest.mark.parametrize("text", ["", " \n", None, 3, ["a"]])
def test_no_text_is_refused(text: object) -> None:
    with pytest.raises(InputError, match="the question is empty: write one"):
        checked_text("question", text, 10)


def test_a_long_text_is_refused_and_a_fitting_one_stripped() -> None:
    assert checked_text("question", " what? ", 10) == "what?"
    assert checked_text("question", "x" * 10, 10) == "x" * 10
    with pytest.raises(InputError, match="the answer has 11 letters: at most 10 are taken"):
        checked_text("answer", "x" * 11, 10)


def test_a_whole_request_has_room_for_its_pictures_in_base64() -> None:
    limits = Limits(pictures=2, file_bytes=3000)
    assert limits.body_bytes >= 2 * 4000

"""The bookkeeping of cached keys against a plain dictionary of what every slot must contain."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from paths import ROOT

from dexar_fast._C import BudgetExhausted, ClosedSequence, InvalidRange, KeyMismatch, KvCache, UnknownSequence
from dexar_fast.errors import CacheError

BLOCK = 4
WEAK_HASH = 1  # two hashes for everything: nearly every look meets a collision


def keys(*ids: int) -> np.ndarray:
    return np.array(ids, dtype=np.uint64)


def filled(cache: KvCache, ids: Sequence[int]) -> int:
    """A sequence whose tokens are all written and committed."""
    sequence, _, reused, _ = cache.open(keys(*ids))
    cache.extend(sequence, len(ids) - reused)
    cache.commit(sequence, keys(*ids[reused:]))
    return sequence


class Pool:
    """Slots, and per sequence the contents they must have; a content stands for the token and all before it."""

    def __init__(self, blocks: int, seed: int) -> None:
        self.cache = KvCache(blocks, BLOCK, WEAK_HASH)
        self.slots = np.zeros(blocks * BLOCK, dtype=np.int64)
        self.expected: dict[int, list[tuple[int, int]]] = {}  # by sequence: (key, content) of each token
        self.start: dict[int, int] = {}
        self.committed: dict[int, int] = {}
        self.random = random.Random(seed)
        self.contents: dict[tuple[int, int], int] = {}

    def content(self, before: list[tuple[int, int]], key: int) -> int:
        parent = before[-1][1] if before else 0
        return self.contents.setdefault((parent, key), len(self.contents) + 1)

    def draw(self, count: int) -> list[int]:
        return [int(self.random.random() < 0.1) for _ in range(count)]

    def tokens(self, before: list[tuple[int, int]], drawn: list[int]) -> list[tuple[int, int]]:
        tokens = list(before)
        for key in drawn:
            tokens.append((key, self.content(tokens, key)))
        return tokens

    def copy(self, copies: list[tuple[int, int, int]]) -> None:
        for source, target, count in copies:
            self.slots[target : target + count] = self.slots[source : source + count]

    def open(self) -> None:
        drawn = self.draw(self.random.randrange(50))
        sequence, self_start, reused, copies = self.cache.open(keys(*drawn), self.random.choice([0, 0, 30]))
        assert reused < max(len(drawn), 1)
        self.copy(copies)
        self.start[sequence], self.committed[sequence] = self_start, reused
        self.expected[sequence] = self.tokens([], drawn[:reused])

    def extend(self, sequence: int) -> None:
        count = self.random.choice([1, 1, 2, 20])
        _, start, length, copies = self.cache.extend(sequence, count)
        self.copy(copies)
        tokens = self.tokens(self.expected[sequence], self.draw(count))
        assert length == len(tokens)
        self.slots[start + length - count : start + length] = [content for _, content in tokens[-count:]]
        self.start[sequence], self.expected[sequence] = start, tokens

    def commit(self, sequence: int) -> None:
        done, tokens = self.committed[sequence], self.expected[sequence]
        end = self.random.randint(done, len(tokens))
        self.cache.commit(sequence, keys(*(key for key, _ in tokens[done:end])))
        self.committed[sequence] = end

    def truncate(self, sequence: int) -> None:
        length = self.random.randint(0, len(self.expected[sequence]))
        self.cache.truncate(sequence, length)
        del self.expected[sequence][length:]
        self.committed[sequence] = min(self.committed[sequence], length)

    def fork(self, sequence: int) -> None:
        child = self.cache.fork(sequence)
        self.expected[child] = list(self.expected[sequence])
        self.start[child], self.committed[child] = self.start[sequence], self.committed[sequence]

    def close(self, sequence: int) -> None:
        self.cache.close(sequence)
        del self.expected[sequence]

    def step(self) -> None:
        operations: list[Callable[[int], None]] = [self.extend, self.extend, self.commit, self.truncate, self.close]
        if len(self.expected) < 6:
            operations += [self.fork, lambda _: self.open()]
        try:
            self.random.choice(operations)(self.random.choice(list(self.expected))) if self.expected else self.open()
        except BudgetExhausted:
            self.close(self.random.choice(list(self.expected)))

    def verify(self) -> None:
        for sequence, tokens in self.expected.items():
            assert self.cache.span(sequence) == (self.start[sequence], len(tokens), self.committed[sequence])
            found = self.slots[self.start[sequence] :][: len(tokens)]
            assert found.tolist() == [content for _, content in tokens]


def test_random_operations_lose_no_slot() -> None:
    pool = Pool(blocks=60, seed=0)
    for count in range(100_000):
        pool.step()
        if count % 10 == 0:
            pool.verify()
            pool.cache.audit()
    for sequence in list(pool.expected):
        pool.close(sequence)
    pool.cache.clear()
    stats = pool.cache.stats()
    assert (stats["held"], stats["cached"], stats["free"], stats["sequences"]) == (0, 0, 60, 0)
    assert min(stats["moves"], stats["evictions"], stats["reused_slots"]) > 1000


def test_a_prefix_is_found_but_for_the_last_token() -> None:
    cache = KvCache(32, BLOCK)
    cache.close(filled(cache, range(12)))
    assert cache.open(keys(*range(12)))[2] == 11
    assert cache.open(keys(*range(13)))[2] == 12
    assert cache.open(keys(*range(10), 99, 99))[2] == 10
    assert cache.open(keys(*range(8), 99, 99))[2] == 8
    assert cache.open(keys(99, *range(1, 12)))[2] == 0
    assert cache.open(keys())[2] == 0


def test_only_what_is_committed_is_found() -> None:
    cache = KvCache(32, BLOCK)
    sequence = cache.open(keys(*range(12)))[0]
    cache.extend(sequence, 12)
    cache.commit(sequence, keys(*range(7)))
    assert cache.open(keys(*range(12)))[2] == 7


def test_questions_that_part_within_a_block_share_its_start() -> None:
    cache = KvCache(32, BLOCK)
    cache.close(filled(cache, range(11)))
    _, start, reused, copies = cache.open(keys(*range(10), 50, 51))
    assert (reused, copies) == (10, [(0, start, 10)])


def test_a_conversation_goes_on_in_place() -> None:
    cache = KvCache(32, BLOCK)
    cache.close(filled(cache, range(10)))
    assert cache.open(keys(*range(14)))[1:] == (0, 10, [])


def test_copies_that_were_never_made_are_not_found() -> None:
    cache = KvCache(32, BLOCK)
    held = filled(cache, range(3))
    sequence, start, _, copies = cache.open(keys(*range(3), 7))
    assert copies == [(0, start, 3)]
    cache.close(sequence)
    cache.truncate(held, 0)
    cache.extend(held, 3)
    assert cache.open(keys(*range(3), 8))[2] == 0


def test_the_first_comer_extends_a_prefix_in_place_and_the_next_gets_a_copy() -> None:
    cache = KvCache(32, BLOCK)
    cache.close(filled(cache, range(8)))
    assert cache.open(keys(*range(8), 1))[1:] == (0, 8, [])
    _, start, reused, copies = cache.open(keys(*range(8), 2))
    assert (reused, copies) == (8, [(0, start, 8)])
    assert start >= 12


def test_the_first_fork_to_write_grows_in_place_and_the_other_moves() -> None:
    cache = KvCache(32, BLOCK)
    parent = filled(cache, range(6))
    child = cache.fork(parent)
    assert cache.extend(child, 1)[1:] == (0, 7, [])
    _, start, length, copies = cache.extend(parent, 1)
    assert (length, copies) == (7, [(0, start, 6)])
    cache.close(parent)
    assert cache.span(child) == (0, 7, 6)


def test_a_sequence_that_is_hemmed_in_moves_once() -> None:
    cache = KvCache(64, BLOCK)
    first, second = (cache.open(keys(*range(8)), 8)[0] for _ in range(2))
    for sequence in (first, second):
        cache.extend(sequence, 8)
    for _ in range(8):
        cache.extend(first, 1)
    stats = cache.stats()
    assert (stats["moves"], stats["moved_slots"]) == (1, 8)


def test_growth_without_a_reserve_copies_a_token_twice_at_most() -> None:
    """Three sequences in each other's way, a token at a time: every move doubles the room."""
    cache, tokens = KvCache(8192, BLOCK), 2000
    sequences = [cache.open(keys())[0] for _ in range(3)]
    places = [[cache.extend(sequence, 1)[1] for sequence in sequences] for _ in range(tokens)]
    stats = cache.stats()
    moves = sum(before != after for one in zip(*places, strict=True) for before, after in pairwise(one))
    assert 0 < stats["moves"] == moves <= len(sequences) * np.log2(tokens)
    assert 0 < stats["moved_slots"] <= 2 * len(sequences) * tokens


def test_after_a_move_the_whole_sequence_is_found_in_place() -> None:
    cache = KvCache(64, BLOCK)
    first = filled(cache, range(8))
    other = filled(cache, range(50, 58))
    cache.extend(first, 8)
    cache.commit(first, keys(*range(8, 16)))
    cache.close(first)
    cache.close(other)
    assert cache.stats()["cached"] == 6  # nothing is cached twice
    assert cache.open(keys(*range(20)))[2:] == (16, [])


def test_a_prefix_in_pieces_is_put_together() -> None:
    cache = KvCache(32, BLOCK)
    first = filled(cache, range(8))
    sequence = cache.fork(first)
    cache.extend(first, 4)
    cache.extend(sequence, 4)
    cache.commit(sequence, keys(20, 21, 22, 23))
    cache.close(sequence)
    _, start, reused, copies = cache.open(keys(*range(8), 20, 21, 22, 23, 24))
    assert reused == 12
    assert [(target - start, count) for _, target, count in copies] == [(0, 8), (8, 4)]


@pytest.mark.parametrize(("first", "found"), [(0, 4), (100, 0), (200, 4)])
def test_the_least_recently_used_prefix_is_evicted(first: int, found: int) -> None:
    cache = KvCache(3, BLOCK)
    a, b, c = (filled(cache, range(start, start + 4)) for start in (0, 100, 200))
    for sequence in (b, c, a):
        cache.close(sequence)
    cache.close(filled(cache, range(300, 304)))
    assert cache.stats()["evictions"] == 1
    assert cache.open(keys(*range(first, first + 5)))[2] == found


def test_the_end_of_a_sequence_is_evicted_before_its_start() -> None:
    cache = KvCache(4, BLOCK)
    cache.close(filled(cache, range(16)))
    cache.close(filled(cache, range(100, 104)))
    assert cache.open(keys(*range(16)))[2] == 12


def test_other_answers_behind_a_prefix_stay_cached_while_there_is_room() -> None:
    cache = KvCache(8, BLOCK)
    cache.close(filled(cache, range(12)))
    other = filled(cache, [0, 1, 2, 3, 50, 51])
    assert cache.stats()["evictions"] == 0
    cache.close(other)
    assert cache.open(keys(*range(13)))[2] == 12


def test_what_is_evicted_is_no_longer_found_and_what_is_held_is_not_evicted() -> None:
    cache = KvCache(4, BLOCK)
    held = filled(cache, range(8))
    cache.close(filled(cache, range(100, 108)))
    cache.close(filled(cache, range(200, 208)))
    assert cache.stats()["evictions"] == 2
    assert cache.open(keys(*range(100, 108)))[2] == 0
    assert cache.span(held) == (0, 8, 8)


def test_a_full_pool_refuses_and_stays_as_it_was() -> None:
    cache = KvCache(4, BLOCK)
    sequence = filled(cache, range(10))
    before = cache.stats(), cache.span(sequence)
    for call in (lambda: cache.open(keys(*range(50, 60))), lambda: cache.extend(sequence, 20)):
        with pytest.raises(BudgetExhausted, match="Close sequences or make the pool larger"):
            call()
    assert (cache.stats(), cache.span(sequence)) == before
    cache.audit()
    cache.extend(sequence, 6)


def test_a_prefix_that_is_in_the_way_is_given_up() -> None:
    cache = KvCache(5, BLOCK)
    held = filled(cache, range(50, 54))
    cache.close(filled(cache, range(12)))
    cache.close(held)
    assert cache.open(keys(*range(20)))[1:] == (0, 0, [])
    cache.audit()


def test_a_refusal_says_how_much_is_free_and_how_much_of_it_in_a_row() -> None:
    cache = KvCache(4, BLOCK)
    sequences = [filled(cache, range(first, first + 4)) for first in (0, 10, 20, 30)]
    for index in (0, 2, 3):
        cache.close(sequences[index])
    with pytest.raises(BudgetExhausted, match=r"run of 3 blocks .* 4, 3 have no holder, 2 of them in a row"):
        cache.open(keys(*range(50, 62)))


def test_room_kept_for_growth_is_given_back_before_anyone_is_refused() -> None:
    cache = KvCache(8, BLOCK)
    sequence = cache.open(keys())[0]
    cache.extend(sequence, 16)  # and room for 16 more
    assert cache.stats()["held"] == 8
    cache.open(keys(*range(16)))
    assert cache.stats()["held"] == 8


def test_truncate_gives_blocks_back_but_those_reserved() -> None:
    cache = KvCache(32, BLOCK)
    reserved, free = cache.open(keys(), 40)[0], cache.open(keys())[0]
    for sequence in (reserved, free):
        cache.extend(sequence, 40)
        cache.truncate(sequence, 1)
    assert cache.stats()["held"] == 10 + 1


def test_rewriting_a_committed_block_takes_it_out_of_the_index() -> None:
    cache = KvCache(32, BLOCK)
    sequence = filled(cache, range(8))
    cache.truncate(sequence, 6)
    assert cache.open(keys(*range(9)))[2] == 8  # still written
    cache.extend(sequence, 1)  # elsewhere: the other sequence reads those slots
    cache.commit(sequence, keys(99))
    assert cache.open(keys(*range(9)))[2] == 8
    assert cache.open(keys(*range(6), 99, 7, 8))[2] == 7


def test_colliding_prefixes_are_told_apart_key_by_key() -> None:
    cache = KvCache(64, BLOCK, hash_mask=0)
    for first in range(10):
        cache.close(filled(cache, range(first, first + 8)))
    for first in range(10):
        sequence, start, reused, copies = cache.open(keys(*range(first, first + 9)))
        assert (copies[0][0] if copies else start, reused) == (first * 8, 8)
        cache.close(sequence)
        cache.audit()


def test_equal_blocks_behind_different_prefixes_are_told_apart() -> None:
    cache = KvCache(64, BLOCK, hash_mask=0)
    cache.close(filled(cache, range(4, 8)))
    assert cache.open(keys(0, 1, 2, 3, 4, 5, 6, 7, 8))[2] == 0


def test_other_keys_for_the_same_slots_are_refused() -> None:
    cache = KvCache(8, BLOCK)
    sequence = cache.open(keys())[0]
    cache.extend(sequence, 3)
    fork = cache.fork(sequence)
    cache.commit(sequence, keys(1, 2))
    with pytest.raises(KeyMismatch):
        cache.commit(fork, keys(1, 3))
    cache.commit(fork, keys(1, 2, 3))


@pytest.mark.parametrize(
    "use",
    [
        lambda cache, sequence: cache.extend(sequence, 1),
        lambda cache, sequence: cache.commit(sequence, keys()),
        lambda cache, sequence: cache.truncate(sequence, 0),
        lambda cache, sequence: cache.fork(sequence),
        lambda cache, sequence: cache.span(sequence),
        lambda cache, sequence: cache.close(sequence),
    ],
)
def test_a_closed_or_unknown_sequence_cannot_be_used(use: Callable[[KvCache, int], object]) -> None:
    cache = KvCache(8, BLOCK)
    sequence = filled(cache, range(6))
    cache.close(sequence)
    with pytest.raises(ClosedSequence, match=f"sequence {sequence} was closed"):
        use(cache, sequence)
    with pytest.raises(UnknownSequence):
        use(cache, sequence + 1)
    cache.audit()


def test_a_row_is_closed_when_it_is_dropped_and_keeps_its_pool() -> None:
    cache = KvCache(8, BLOCK)
    row, start, length, copies = cache.row(keys(1, 2))
    assert (start, length, copies) == (0, 0, [])
    assert row.extend(2) == (0, 2, [])
    row.commit(keys(1, 2))
    fork = row.fork()
    row.truncate(1)
    assert (row.committed(), fork.committed()) == (1, 2)
    del row
    assert cache.stats()["sequences"] == 1
    del cache
    assert fork.extend(1) == (0, 3, [])


def test_ranges_that_cannot_be_are_refused() -> None:
    cache = KvCache(8, BLOCK)
    sequence = filled(cache, range(6))
    calls = [
        lambda: cache.extend(sequence, -1),
        lambda: cache.truncate(sequence, 7),
        lambda: cache.truncate(sequence, -1),
        lambda: cache.commit(sequence, keys(6)),
        lambda: cache.open(keys(1), -1),
        lambda: KvCache(0, BLOCK),
        lambda: KvCache(8, 0),
    ]
    for call in calls:
        with pytest.raises(InvalidRange):
            call()
    assert issubclass(InvalidRange, CacheError)
    assert cache.span(sequence) == (0, 6, 6)


def test_keys_must_be_64_bit_words() -> None:
    with pytest.raises(TypeError):
        KvCache(8, BLOCK).open(np.array([1.5, 2.5]))  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++: the stress under sanitizers is not run")
@pytest.mark.parametrize(
    ("sanitizer", "threads", "operations"), [("address,undefined", 1, 100_000), ("thread", 4, 25_000)]
)
def test_stress_under_sanitizers(sanitizer: str, threads: int, operations: int, tmp_path: Path) -> None:
    program = tmp_path / "kv_cache_stress"
    sources = [
        ROOT / "tests" / "support" / "kv_cache_stress.cpp",
        *sorted((ROOT / "csrc").glob("kv_*.cpp")),
    ]
    flags = ["-std=c++17", "-O1", "-g", "-pthread", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
    subprocess.run(["g++", *flags, f"-I{ROOT / 'csrc'}", *sources, "-o", program], check=True)
    done = subprocess.run([program, str(threads), str(operations), "1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

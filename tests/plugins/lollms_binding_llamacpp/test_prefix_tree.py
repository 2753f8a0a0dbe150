"""The radix tree and the cache over it, against a memory that knows of every cell which sequences have it."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as some
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from lollms_binding_llamacpp.prefix_tree import Path, PrefixTree, common_prefix, shareable
from lollms_binding_llamacpp.sequence_cache import Held, SequenceCache

TOKENS = some.lists(some.integers(0, 2), max_size=12)
TENANTS = some.sampled_from(["a", "b"])


@some.composite
def paths(draw: Any, tokens: Any = TOKENS) -> Path:
    chosen = draw(tokens)
    public = draw(some.integers(0, len(chosen)))
    return Path(tuple(chosen), public, draw(TENANTS), draw(some.sampled_from([(), ((0, 1.0),)])))


def may_share(one: Path, other: Path) -> int:
    """How much of two prompts is the same and may be known to both, token by token."""
    if one.root != other.root:
        return 0
    length = 0
    for at, (left, right) in enumerate(zip(one.tokens, other.tokens, strict=False)):
        if left != right or one.scope(at) != other.scope(at):
            break
        length += 1
    return length


@given(paths(), paths())
def test_what_may_be_shared_is_what_is_the_same_and_known_to_both(one: Path, other: Path) -> None:
    assert shareable(one, other) == may_share(one, other)


@given(some.lists(some.integers(0, 1)), some.lists(some.integers(0, 1)), some.integers(0, 3))
def test_common_prefix(run: list[int], tokens: list[int], start: int) -> None:
    size = common_prefix(run, tokens, start, len(tokens))
    there = tokens[start:]
    assert run[:size] == there[:size]
    assert size == min(len(run), len(there)) or run[size] != there[size]


@given(some.lists(paths(), max_size=8), paths())
def test_the_longest_match_is_found_and_only_what_may_be_known(inserted: list[Path], asked: Path) -> None:
    tree = PrefixTree()
    for id, path in enumerate(inserted):
        tree.insert(id, path)

    found, donor = tree.match(asked, len(asked.tokens))

    assert found == max((may_share(path, asked) for path in inserted), default=0)
    if donor is not None:
        assert may_share(inserted[donor], asked) >= found
    limited, _ = tree.match(asked, 3)
    assert limited == min(found, 3)


@given(some.lists(paths(), max_size=8), some.randoms())
def test_cells_are_counted_once_and_vanish_with_their_last_sequence(inserted: list[Path], order: Any) -> None:
    tree = PrefixTree()
    for id, path in enumerate(inserted):
        tree.insert(id, path)

    def distinct(paths: list[Path]) -> int:
        prefixes = {
            (path.root, tuple((path.scope(at), path.tokens[at]) for at in range(end + 1)))
            for path in paths
            for end in range(len(path.tokens))
        }
        return len(prefixes)

    assert tree.cells == distinct(inserted)
    ids = list(range(len(inserted)))
    order.shuffle(ids)
    left = dict(enumerate(inserted))
    for id in ids:
        tree.remove(id)
        del left[id]
        assert tree.cells == distinct(list(left.values()))
    assert list(tree.nodes()) == []


@given(some.lists(paths(), max_size=6), paths())
def test_a_whole_match_is_a_sequence_that_ends_there(inserted: list[Path], asked: Path) -> None:
    tree = PrefixTree()
    for id, path in enumerate(inserted):
        tree.insert(id, path)
    found, donor = tree.match_whole(asked, len(asked.tokens))
    whole = [len(p.tokens) for p in inserted if p.tokens and may_share(p, asked) == len(p.tokens)]
    assert found == max(whole, default=0)
    assert (donor is None) == (found == 0)


class CellMemory:
    """Cells with a position, a token and the sequences that have them; refuses what llama.cpp would die of."""

    unified = True

    def __init__(self, sequences: int, cells: int) -> None:
        self.sequences = sequences
        self.cells = cells
        self.used: list[tuple[int, set[int]]] = []
        self.content: dict[int, tuple[int, ...]] = {}

    def evaluate(self, sequence: int, count: int) -> None:
        start = self.length(sequence)
        for position in range(start, start + count):
            self.used.append((position, {sequence}))
        assert len(self.used) <= self.cells, "the memory is full"

    def length(self, sequence: int) -> int:
        positions = sorted(position for position, holders in self.used if sequence in holders)
        assert positions == list(range(len(positions))), "a sequence has a hole, or a position twice"
        return len(positions)

    def copy(self, source: int, target: int, start: int, end: int) -> None:
        assert source != target
        for position, holders in self.used:
            if source in holders and start <= position < end:
                holders.add(target)

    def remove(self, sequence: int, start: int = 0, end: int = -1) -> bool:
        for position, holders in self.used:
            if start <= position and (end < 0 or position < end):
                holders.discard(sequence)
        self.used = [(position, holders) for position, holders in self.used if holders]
        return True

    def save(self, sequence: int) -> bytes:
        return bytes(self.length(sequence))

    def load(self, sequence: int, state: bytes) -> bool:
        assert self.length(sequence) == 0
        self.evaluate(sequence, len(state))
        return True


class CacheMachine(RuleBasedStateMachine):
    """Requests come, are evaluated, cut, released, and dropped, in any order."""

    running = Bundle("running")

    def __init__(self) -> None:
        super().__init__()
        self.memory = CellMemory(sequences=4, cells=60)
        self.cache = SequenceCache(self.memory, host_bytes=24)
        self.held: list[Held] = []
        self.seen: list[tuple[str, int, tuple[int, ...], Any]] = []

    @rule(target=running, path=paths())
    def begin(self, path: Path) -> Any:
        limit = max(0, len(path.tokens) - 1)
        known = self.cache.known(path, limit)
        if not self.cache.make_room(len(path.tokens) + 1):
            return None
        held = self.cache.take(path, limit)
        if held is None:
            assert len(self.held) == self.memory.sequences
            return None
        assert len(held.tokens) <= limit
        assert known <= limit
        assert held.tokens == list(path.tokens[: len(held.tokens)])
        rest = path.tokens[len(held.tokens) :]
        if not self.cache.make_room(len(rest)):
            self.cache.release(held)
            return None
        self.memory.evaluate(held.id, len(rest))
        self.cache.extend(held, rest)
        self.held.append(held)
        return held

    @rule(held=running)
    def publish(self, held: Any) -> None:
        if held in self.held:
            self.cache.publish(held)

    @rule(held=running, token=some.integers(0, 2))
    def answer(self, held: Any, token: int) -> None:
        if held in self.held and self.cache.make_room(1):
            self.memory.evaluate(held.id, 1)
            self.cache.extend(held, [token])

    @rule(held=running, length=some.integers(0, 12))
    def cut(self, held: Any, length: int) -> None:
        if held in self.held:
            self.cache.cut(held, length)

    @rule(held=running, start=some.integers(0, 5), size=some.integers(1, 3))
    def shift(self, held: Any, start: int, size: int) -> None:
        if held not in self.held or start + size >= len(held.tokens):
            return
        if self.cache.unshare(held, start):
            before = list(held.tokens)
            self.cache.cut_out(held, start, start + size)
            self.memory.used = [
                (position - size if held.id in holders and position >= start + size else position, holders)
                for position, holders in self.memory.used
            ]
            assert held.tokens == before[:start] + before[start + size :]
            self.held.remove(held)
            self.cache.release(held, keep=False)

    @rule(held=consumes(running), keep=some.booleans())
    def release(self, held: Any, keep: bool) -> None:
        if held in self.held:
            self.held.remove(held)
            self.cache.release(held, keep)

    @rule()
    def drop(self) -> None:
        self.cache.drop_oldest()

    @invariant()
    def every_cell_is_accounted_for(self) -> None:
        assert self.cache.used == len(self.memory.used)

    @invariant()
    def sequences_hold_what_they_say(self) -> None:
        for held in self.held:
            assert self.memory.length(held.id) == len(held.tokens)

    @invariant()
    def host_memory_is_bounded(self) -> None:
        assert 0 <= self.cache.host_bytes <= 24


CacheMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestCache = CacheMachine.TestCase


def test_what_was_put_aside_comes_back_for_its_tenant_only() -> None:
    memory = CellMemory(sequences=2, cells=100)
    cache = SequenceCache(memory, host_bytes=1000)
    secret = Path(tuple(range(40)), 0, "a")
    held = cache.take(secret, 39)
    assert held is not None
    memory.evaluate(held.id, 40)
    cache.extend(held, secret.tokens)
    cache.release(held)
    while cache.drop_oldest():
        pass
    assert memory.used == []
    assert cache.host_bytes == 40

    assert cache.known(Path(secret.tokens, 0, "b"), 39) == 0
    assert cache.known(Path(secret.tokens, 20, "a"), 39) == 0
    again = cache.take(Path((*secret.tokens[:36], 99), 0, "a"), 36)

    assert again is not None
    assert again.tokens == list(secret.tokens[:36])
    assert memory.length(again.id) == 36
    assert cache.host_bytes == 0


def test_the_one_not_used_for_longest_goes_first() -> None:
    memory = CellMemory(sequences=3, cells=30)
    cache = SequenceCache(memory)

    def use(first: int) -> None:
        path = Path((first, *range(100, 109)))
        assert cache.make_room(10)
        held = cache.take(path, 9)
        assert held is not None
        rest = path.tokens[len(held.tokens) :]
        memory.evaluate(held.id, len(rest))
        cache.extend(held, rest)
        cache.release(held)

    for first in (1, 2, 3, 1, 4):
        use(first)
    known = {first: cache.known(Path((first, *range(100, 109))), 9) for first in (1, 2, 3, 4)}
    assert known == {1: 9, 2: 0, 3: 9, 4: 9}

"""The memory of all sequences: what runs, what is kept for later, and what has to go when room is needed.

Sequences of ended requests stay until their cells are needed; a new request takes over what its prompt has in common
with any of them, without copying. Where host memory is allowed for it, what goes is put aside there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

import msgspec

from .prefix_tree import Path, PrefixTree, shareable

WORTH_RELOADING = 32
"""Tokens that a state put aside must save before it is fetched back."""


class Memory(Protocol):
    """What is needed of a context."""

    unified: bool
    sequences: int
    cells: int

    def copy(self, source: int, target: int, start: int, end: int) -> None:
        """Let `target` have what `source` has at these positions."""

    def remove(self, sequence: int, start: int = 0, end: int = -1) -> bool:
        """Take positions out of a sequence."""

    def save(self, sequence: int) -> bytes:
        """The state of a sequence."""

    def load(self, sequence: int, state: bytes) -> bool:
        """Fill an empty sequence."""


class Held:
    """A sequence in the memory: its tokens, and whose they are."""

    __slots__ = ("id", "public", "root", "shared", "tenant", "tokens")

    def __init__(self, id: int, path: Path, length: int) -> None:
        self.id = id
        self.public = path.public
        self.tenant = path.tenant
        self.root = path.root
        self.tokens: list[int] = list(path.tokens[:length])
        self.shared = length
        """Leading tokens that are in the tree; the others belong to this sequence alone."""

    @property
    def path(self) -> Path:
        """Its tokens for the tree."""
        return Path(self.tokens, self.public, self.tenant, self.root)

    @property
    def private(self) -> int:
        """Tokens that nobody else can find."""
        return len(self.tokens) - self.shared


class _Aside(msgspec.Struct, frozen=True):
    path: Path
    state: bytes


class SequenceCache:
    """Hands out sequences and keeps those of ended requests. `can_cut`: whether the model's memory can lose its end."""

    def __init__(self, memory: Memory, *, can_cut: bool = True, host_bytes: int = 0) -> None:
        self._memory = memory
        self._can_cut = can_cut
        self._tree = PrefixTree()
        self._free = list(range(memory.sequences - 1, -1, -1))
        self._running: dict[int, Held] = {}
        self._kept: OrderedDict[int, Held] = OrderedDict()
        self._aside: OrderedDict[int, _Aside] = OrderedDict()
        self._aside_bytes = 0
        self._aside_next = 0
        self._host_bytes = host_bytes
        self._private = 0
        """Tokens of running sequences that are not in the tree."""

    @property
    def used(self) -> int:
        """Cells that hold something."""
        return self._tree.cells + self._private

    @property
    def free(self) -> int:
        """Cells that hold nothing."""
        return self._memory.cells - self.used

    @property
    def kept(self) -> int:
        """Sequences of ended requests."""
        return len(self._kept)

    @property
    def host_bytes(self) -> int:
        """Bytes put aside in host memory."""
        return self._aside_bytes

    def known(self, path: Path, limit: int) -> int:
        """How many of the first `limit` tokens need not be evaluated."""
        match = self._tree.match if self._can_cut else self._tree.match_whole
        found, _ = match(path, limit)
        _, put_aside = self._best_aside(path, limit, found)
        return max(found, put_aside)

    def take(self, path: Path, limit: int) -> Held | None:
        """A sequence that begins with what is known of the prompt, at most `limit` tokens; None if all are running."""
        if not self._free and not self._kept:
            return None
        match = self._tree.match if self._can_cut else self._tree.match_whole
        length, donor = match(path, limit)
        key, put_aside = self._best_aside(path, limit, length)
        if (
            key is not None
            and put_aside >= length + WORTH_RELOADING
            and (held := self._fetch(key, path, put_aside))
        ):
            return held
        if not self._free:
            spare = next((id for id in self._kept if id != donor), None)
            if spare is None:
                return self._take_over(donor, path, length)
            self._drop_kept(spare)
        id = self._free.pop()
        if donor is not None:
            self._memory.copy(donor, id, 0, length)
        held = Held(id, path, length)
        if length:
            self._tree.insert(id, held.path)
        self._running[id] = held
        return held

    def extend(self, held: Held, tokens: Sequence[int]) -> None:
        """Note that these tokens were evaluated."""
        held.tokens.extend(tokens)
        self._private += len(tokens)

    def cut(self, held: Held, length: int) -> bool:
        """Take everything after the first `length` tokens out; False if this kind of model cannot."""
        if length >= len(held.tokens):
            return True
        if not self._memory.remove(held.id, length, -1):
            return False
        if length < held.shared:
            self._tree.remove(held.id)
            self._private -= held.private
            del held.tokens[length:]
            held.shared = length
            if length:
                self._tree.insert(held.id, held.path)
        else:
            self._private -= len(held.tokens) - length
            del held.tokens[length:]
        return True

    def publish(self, held: Held) -> None:
        """Let others find what this sequence holds."""
        if held.shared == len(held.tokens):
            return
        existing, donor = self._tree.insert(held.id, held.path)
        if existing > held.shared and donor is not None and self._memory.unified:
            self._memory.remove(held.id, held.shared, existing)  # somebody evaluated the same tokens before
            self._memory.copy(donor, held.id, held.shared, existing)
        self._private -= held.private
        held.shared = len(held.tokens)

    def release(self, held: Held, keep: bool = True) -> None:
        """End a sequence's use; it is kept for later, or forgotten."""
        del self._running[held.id]
        if keep and held.tokens:
            self.publish(held)
            self._kept[held.id] = held
        else:
            self._forget(held)

    def make_room(self, cells: int) -> bool:
        """Drop what was not used for longest until so many cells are free; False if there is nothing left to drop."""
        while self.free < cells and self._kept:
            self._drop_kept(next(iter(self._kept)))
        return self.free >= cells

    def drop_oldest(self) -> bool:
        """Drop the one kept sequence that was not used for longest; False if none is kept."""
        if not self._kept:
            return False
        self._drop_kept(next(iter(self._kept)))
        return True

    def is_kept(self, held: Held) -> bool:
        """Whether a released sequence is still there."""
        return self._kept.get(held.id) is held

    def discard(self, held: Held) -> bool:
        """Forget a kept sequence; False if it has gone already."""
        if not self.is_kept(held):
            return False
        del self._kept[held.id]
        self._forget(held)
        return True

    def state_of(self, held: Held) -> bytes:
        """The state of a kept sequence; b"" if it has gone."""
        return self._memory.save(held.id) if self.is_kept(held) else b""

    def restore(self, path: Path, state: bytes) -> Held | None:
        """Keep a state that `state_of` gave; None where it does not fit."""
        if not self.make_room(len(path.tokens)):
            return None
        if not self._free and not self.drop_oldest():
            return None
        id = self._free.pop()
        if not self._memory.load(id, state):
            self._free.append(id)
            return None
        held = Held(id, path, 0)
        self._running[id] = held
        self.extend(held, path.tokens)
        self.release(held)
        return held

    def unshare(self, held: Held, start: int) -> bool:
        """Make everything of a running sequence from `start` on its own, so that it can be moved; False if others that
        run hold some of it."""
        others = self._tree.others_beyond(held.id, start) if held.id in self._tree else set()
        if not others.isdisjoint(self._running):
            return False
        for other in others:
            self._drop_kept(other)
        if held.shared > start:
            self._tree.remove(held.id)
            self._private += held.shared - start
            held.shared = start
            if start:
                self._tree.insert(held.id, Path(held.tokens[:start], held.public, held.tenant, held.root))
        return True

    def cut_out(self, held: Held, start: int, end: int) -> None:
        """Take a part out of the middle of a sequence that shares nothing from `start` on."""
        assert held.shared <= start
        self._memory.remove(held.id, start, end)
        del held.tokens[start:end]
        self._private -= end - start

    def forget_everything(self) -> None:
        """Drop all kept sequences and everything put aside."""
        while self.drop_oldest():
            pass
        self._aside.clear()
        self._aside_bytes = 0

    def _take_over(self, donor: int | None, path: Path, length: int) -> Held | None:
        if donor is None or donor not in self._kept:
            return None
        held = self._kept.pop(donor)
        self._running[donor] = held
        if not self.cut(held, length):
            del self._running[donor]
            self._forget(held)
            return self.take(path, 0)
        held.public, held.tenant, held.root = path.public, path.tenant, path.root
        return held

    def _forget(self, held: Held) -> None:
        if held.id in self._tree:
            self._tree.remove(held.id)
        self._private -= held.private
        self._memory.remove(held.id)
        self._free.append(held.id)

    def _drop_kept(self, id: int) -> None:
        held = self._kept.pop(id)
        if self._host_bytes:
            self._put_aside(held)
        self._forget(held)

    # --- host memory ---

    def _put_aside(self, held: Held) -> None:
        path = Path(tuple(held.tokens), held.public, held.tenant, held.root)
        if any(shareable(aside.path, path) >= len(path.tokens) for aside in self._aside.values()):
            return
        state = self._memory.save(held.id)
        if not state or len(state) > self._host_bytes:
            return
        self._aside[self._aside_next] = _Aside(path, state)
        self._aside_next += 1
        self._aside_bytes += len(state)
        while self._aside_bytes > self._host_bytes:
            _, oldest = self._aside.popitem(last=False)
            self._aside_bytes -= len(oldest.state)

    def _best_aside(self, path: Path, limit: int, better_than: int) -> tuple[int | None, int]:
        best: tuple[int | None, int] = (None, better_than)
        for key, aside in self._aside.items():
            length = min(shareable(aside.path, path), limit)
            if not self._can_cut and length < len(aside.path.tokens):
                continue
            if length > best[1]:
                best = (key, length)
        return best if best[0] is not None else (None, 0)

    def _fetch(self, key: int, path: Path, length: int) -> Held | None:
        aside = self._aside.pop(key)
        self._aside_bytes -= len(aside.state)
        if not self.make_room(len(aside.path.tokens)) or not (self._free or self.drop_oldest()):
            return None
        id = self._free.pop()
        if not self._memory.load(id, aside.state):
            self._free.append(id)
            return None
        held = Held(id, aside.path, 0)
        self._running[id] = held
        self.extend(held, aside.path.tokens)
        self.publish(held)
        self.cut(held, length)
        held.public, held.tenant = path.public, path.tenant
        return held

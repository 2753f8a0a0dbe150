"""Which sequence holds the cells of which tokens: a radix tree over the sequences in the memory.

Every node stands for a run of tokens that is in the memory exactly once, shared by all sequences that pass through it.
Tokens are told apart by who may know of them: the beginning of a prompt that comes from the operator's configuration
alone is public, all that follows belongs to one tenant. A path only ever meets nodes of its own kind, so nothing a
tenant wrote can be found, or noticed, by another.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import msgspec

Scope = str | None
"""A tenant, or None for what everybody may share."""


class Path(msgspec.Struct, frozen=True):
    """The tokens of a prompt and whose they are: the first `public` of them everybody's, the others `tenant`'s.

    `root` is what else the cells depend on, such as the LoRA adapters in force.
    """

    tokens: Sequence[int]
    public: int = 0
    tenant: str = ""
    root: Hashable = None

    def scope(self, depth: int) -> Scope:
        """Who may know of the token at `depth`."""
        return None if depth < self.public else self.tenant

    def boundary(self, depth: int) -> int:
        """Where the scope of the token at `depth` ends."""
        return self.public if depth < self.public else len(self.tokens)


class Node:
    """A run of tokens of one scope."""

    __slots__ = ("children", "parent", "scope", "sequences", "tokens")

    def __init__(self, tokens: list[int], scope: Scope, parent: Node | None) -> None:
        self.tokens = tokens
        self.scope = scope
        self.parent = parent
        self.children: dict[tuple[Scope, int], Node] = {}
        self.sequences: set[int] = set()


class PrefixTree:
    """The runs of tokens in the memory. Sequences are ids; each is in the tree at most once."""

    def __init__(self) -> None:
        self._roots: dict[Hashable, Node] = {}
        self._ends: dict[int, Node] = {}
        self.cells = 0
        """Tokens of all nodes together."""

    def __contains__(self, sequence: int) -> bool:
        return sequence in self._ends

    def match(self, path: Path, limit: int) -> tuple[int, int | None]:
        """How many of the first `limit` tokens are there, and one of the sequences that hold them."""
        node, inside, depth = self._walk(path, limit)
        if not depth or node is None or not inside:
            return 0, None
        return depth, next(iter(node.sequences))

    def match_whole(self, path: Path, limit: int) -> tuple[int, int | None]:
        """As `match`, but only a sequence that ends where the match ends."""
        best: tuple[int, int | None] = (0, None)
        node = self._roots.get(path.root)
        limit = min(limit, len(path.tokens))
        depth = 0
        while node is not None and depth < limit:
            child = node.children.get((path.scope(depth), path.tokens[depth]))
            if child is None:
                break
            end = min(path.boundary(depth), limit)
            size = common_prefix(child.tokens, path.tokens, depth, end)
            if size < len(child.tokens):
                break
            depth += size
            node = child
            ending = next((s for s in node.sequences if self._ends[s] is node), None)
            if ending is not None:
                best = (depth, ending)
        return best

    def insert(self, sequence: int, path: Path) -> tuple[int, int | None]:
        """Note that a sequence holds these tokens (perhaps more than it did before).

        Gives how many of them were there already, and another sequence that holds those, if there is one.
        """
        length = len(path.tokens)
        node, inside, depth = self._walk(path, length)
        if node is None:
            node = self._roots[path.root] = Node([], None, None)
        elif inside < len(node.tokens):
            node = self._split(node, inside)
        donor = next((s for s in node.sequences if s != sequence), None)
        existing = depth
        while depth < length:
            end = path.boundary(depth)
            scope = path.scope(depth)
            child = Node(list(path.tokens[depth:end]), scope, node)
            node.children[scope, child.tokens[0]] = child
            self.cells += len(child.tokens)
            node, depth = child, end
        self._ends[sequence] = node
        up: Node | None = node
        while up is not None:
            up.sequences.add(sequence)
            up = up.parent
        return existing, donor

    def remove(self, sequence: int) -> int:
        """Forget a sequence; gives how many tokens no other one holds."""
        node: Node | None = self._ends.pop(sequence, None)
        freed = 0
        while node is not None:
            parent = node.parent
            node.sequences.discard(sequence)
            if not node.sequences:
                freed += len(node.tokens)
                if parent is not None:
                    del parent.children[node.scope, node.tokens[0]]
                else:
                    self._roots = {key: root for key, root in self._roots.items() if root is not node}
            else:
                self._merge(node)
            node = parent
        self.cells -= freed
        return freed

    def nodes(self) -> Iterator[Node]:
        """Every run of tokens."""
        waiting = list(self._roots.values())
        while waiting:
            node = waiting.pop()
            waiting += node.children.values()
            if node.parent is not None:
                yield node

    def others_beyond(self, sequence: int, depth: int) -> set[int]:
        """Other sequences that hold something of this one from `depth` on."""
        others: set[int] = set()
        node: Node | None = self._ends.get(sequence)
        end = 0
        runs = []
        while node is not None:
            runs.append(node)
            node = node.parent
        for run in reversed(runs):
            end += len(run.tokens)
            if end > depth and run.parent is not None:
                others |= run.sequences
        others.discard(sequence)
        return others

    def _walk(self, path: Path, limit: int) -> tuple[Node | None, int, int]:
        """Where the path leaves the tree: the node, how many of its tokens match, and the depth."""
        node = self._roots.get(path.root)
        limit = min(limit, len(path.tokens))
        depth = inside = 0
        while node is not None and depth < limit:
            child = node.children.get((path.scope(depth), path.tokens[depth]))
            if child is None:
                break
            inside = common_prefix(child.tokens, path.tokens, depth, min(path.boundary(depth), limit))
            depth += inside
            node = child
            if inside < len(child.tokens):
                break
        return node, inside, depth

    def _split(self, node: Node, at: int) -> Node:
        """Cut a node in two; gives the upper half."""
        assert node.parent is not None
        upper = Node(node.tokens[:at], node.scope, node.parent)
        upper.sequences = set(node.sequences)
        node.parent.children[node.scope, upper.tokens[0]] = upper
        node.tokens = node.tokens[at:]
        node.parent = upper
        upper.children[node.scope, node.tokens[0]] = node
        return upper

    def _merge(self, node: Node) -> None:
        """Join a node with its only child where nothing tells them apart any more."""
        if node.parent is None or len(node.children) != 1:
            return
        child = next(iter(node.children.values()))
        if child.scope != node.scope or child.sequences != node.sequences:
            return
        node.tokens += child.tokens
        node.children = child.children
        for grandchild in node.children.values():
            grandchild.parent = node
        for sequence in child.sequences:
            if self._ends[sequence] is child:
                self._ends[sequence] = node


def common_prefix(run: Sequence[int], tokens: Sequence[int], start: int, end: int) -> int:
    """How many tokens of `run` equal those of `tokens` from `start` on, up to `end`."""
    size = max(0, min(len(run), end - start))
    if list(run[:size]) == list(tokens[start : start + size]):
        return size
    low, high = 0, size  # the first difference is in [low, high)
    while high - low > 1:
        middle = (low + high) // 2
        if list(run[low:middle]) == list(tokens[start + low : start + middle]):
            low = middle
        else:
            high = middle
    return low


def shareable(left: Path, right: Path) -> int:
    """How many tokens two prompts have in common that they may share."""
    if left.root != right.root:
        return 0
    limit = min(len(left.tokens), len(right.tokens))
    if left.public != right.public or left.tenant != right.tenant:
        limit = min(limit, left.public, right.public)
    return common_prefix(left.tokens, right.tokens, 0, limit)

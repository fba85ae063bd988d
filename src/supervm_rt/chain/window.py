"""The part of the tree of blocks that is not yet final: the last final block and all that descends from it.

The canonical chain runs through it as a linked list from ``base`` to ``tip``, so that a switch costs what it undoes and adds, and
finality moves up one block in constant time.
"""

from __future__ import annotations

from collections.abc import Iterator

from supervm_rt.chain.types import Candidate
from supervm_rt.model.chain import BlockRef


class Node:
    """One connected block. ``total`` and ``depth`` are sums along the branch; only their differences mean anything."""

    __slots__ = ("candidate", "canonical", "children", "depth", "next", "order", "parent", "ref", "total")

    def __init__(self, candidate: Candidate, height: int, order: int, parent: Node | None) -> None:
        self.candidate = candidate
        self.ref = BlockRef(candidate.hash, height)
        self.order = order
        self.parent = parent
        self.children: list[Node] = []
        self.total: int = candidate.weight + (parent.total if parent is not None else 0)
        self.depth: int = parent.depth + 1 if parent is not None else 0
        self.canonical = False
        self.next: Node | None = None
        """The canonical child, where this block is canonical."""


class Window:
    """A tree with a base, a tip and the canonical chain between them. Empty until ``plant``."""

    def __init__(self) -> None:
        self._nodes: dict[bytes, Node] = {}
        self.base: Node | None = None
        """The last final block, or, while nothing is final, the first block."""
        self.tip: Node | None = None
        self.base_is_final = False

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[Node]:
        """Parents before children, the base first."""
        return iter(self._nodes.values())

    def get(self, hash_: bytes) -> Node | None:
        """The connected block of this id."""
        return self._nodes.get(hash_)

    def plant(self, candidate: Candidate, height: int, order: int) -> Node:
        """Makes the first block base and tip."""
        node = Node(candidate, height, order, None)
        node.canonical = True
        self._nodes[candidate.hash] = node
        self.base = self.tip = node
        return node

    def attach(self, candidate: Candidate, height: int, order: int, parent: Node) -> Node:
        """Adds a block, on no chain yet but its own branch."""
        node = Node(candidate, height, order, parent)
        parent.children.append(node)
        self._nodes[candidate.hash] = node
        return node

    def switch(self, target: Node) -> tuple[list[Node], list[Node]]:
        """Makes ``target`` the tip. Returns what left the chain, from the tip down, and what joined it, from below up."""
        joined = []
        node = target
        while not node.canonical:
            joined.append(node)
            assert node.parent is not None  # the base is canonical
            node = node.parent
        joined.reverse()
        ancestor = node
        left = []
        assert self.tip is not None
        node = self.tip
        while node is not ancestor:
            node.canonical = False
            left.append(node)
            assert node.parent is not None
            node = node.parent
        for node in joined:
            node.canonical = True
            ancestor.next = node
            ancestor = node
        ancestor.next = None
        self.tip = target
        return left, joined

    @property
    def first_not_final(self) -> Node | None:
        """The lowest canonical block that is not final."""
        if self.base is None or not self.base_is_final:
            return self.base
        return self.base.next

    def finalise_first(self) -> list[Node]:
        """Makes ``first_not_final`` final and the base. Returns the side blocks that this cuts off."""
        old, new = self.base, self.first_not_final
        assert old is not None
        assert new is not None
        self.base_is_final = True
        if new is old:
            return []
        cut = []
        pending = [child for child in old.children if child is not new]
        while pending:
            node = pending.pop()
            pending.extend(node.children)
            cut.append(node)
        for node in (old, *cut):
            del self._nodes[node.ref.hash]
            node.children.clear()
            node.parent = node.next = None
        new.parent = None
        self.base = new
        return cut

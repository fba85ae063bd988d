"""Blocks whose parent is not known yet, in order of arrival, up to a bound."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from supervm_rt.chain.types import Candidate


class OrphanPool:
    """Waiting blocks, found by their own id and by their parent's, each in constant time."""

    def __init__(self, limit: int, waiting: Iterable[tuple[int, Candidate]] = ()) -> None:
        """``waiting`` may hold more than ``limit`` allows (the setting was lowered): the next arrival evicts them."""
        self._limit = limit
        self._by_hash: OrderedDict[bytes, tuple[int, Candidate]] = OrderedDict()
        self._by_parent: dict[bytes, dict[bytes, None]] = {}
        for order, candidate in waiting:
            self._put(order, candidate)

    def __len__(self) -> int:
        return len(self._by_hash)

    def get(self, hash_: bytes) -> Candidate | None:
        """The waiting block of this id."""
        found = self._by_hash.get(hash_)
        return None if found is None else found[1]

    def items(self) -> tuple[tuple[int, Candidate], ...]:
        """(order, block), in order of arrival."""
        return tuple(self._by_hash.values())

    def make_room(self) -> list[bytes]:
        """Evicts the oldest until one more fits, or, where the limit is 0, until none is left. Returns who had to go."""
        evicted = []
        while self._by_hash and len(self._by_hash) >= self._limit:
            hash_, (_, candidate) = self._by_hash.popitem(last=False)
            siblings = self._by_parent[candidate.parent]
            del siblings[hash_]
            if not siblings:
                del self._by_parent[candidate.parent]
            evicted.append(hash_)
        return evicted

    def add(self, order: int, candidate: Candidate) -> bool:
        """Lets a block wait; False where there is no room."""
        if len(self._by_hash) >= self._limit:
            return False
        self._put(order, candidate)
        return True

    def take_children(self, parent: bytes) -> list[tuple[int, Candidate]]:
        """Removes and returns all that wait for this block, in order of arrival."""
        return [self._by_hash.pop(hash_) for hash_ in self._by_parent.pop(parent, ())]

    def _put(self, order: int, candidate: Candidate) -> None:
        self._by_hash[candidate.hash] = (order, candidate)
        self._by_parent.setdefault(candidate.parent, {})[candidate.hash] = None

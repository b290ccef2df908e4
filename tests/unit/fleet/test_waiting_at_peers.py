"""What this router knows of the adapters that wait for slots at peers."""

from collections.abc import Collection, Mapping

from lora_router.fleet.catalog import BaseModels
from lora_router.fleet.slot_allotment import Claim
from lora_router.fleet.waiting_at_peers import WaitingAtPeers

BASE: BaseModels = frozenset({"base"})
OTHER: BaseModels = frozenset({"other"})
PEERS = frozenset({"there"})


class Known:
    """What one router knows, and what it was told of changes."""

    def __init__(self) -> None:
        self.waiting = WaitingAtPeers()
        self.waiting.on_change = self._changed
        self.heard: list[tuple[set[BaseModels], dict[BaseModels, int]]] = []

    def put(
        self,
        *names: str,
        own: Collection[str] = (),
        peers: frozenset[str] = PEERS,
        priority: int = 0,
    ) -> None:
        """Learn that adapters wait, the first one for the longest time."""
        claims = [
            Claim(float(since), "there", name, None, (), None, priority)
            for since, name in enumerate(names)
        ]
        self.waiting.put(claims, own, peers, lambda name: OTHER if "other" in name else BASE)

    def _changed(self, granted: Mapping[BaseModels, int]) -> None:
        waiting = {bases for bases in (BASE, OTHER) if self.waiting.somebody_waits(bases)}
        self.heard.append((waiting, dict(granted)))


def test_those_of_another_base_model_do_not_count() -> None:
    known = Known()
    known.put("a", "b", "other-c")
    assert known.waiting.count_of(BASE, 0) == 2
    assert known.waiting.count_of(OTHER, 0) == 1
    assert known.waiting.before("b", 0) == 1
    assert known.waiting.before("other-c", 0) == 0
    assert known.heard == [({BASE, OTHER}, {})]


def test_those_of_a_lower_priority_do_not_count() -> None:
    known = Known()
    known.put("a", "b", priority=-1)
    assert known.waiting.count_of(BASE, -1) == 2
    assert known.waiting.count_of(BASE, 0) == 0
    assert known.waiting.before("a", 0) is None, "a request of priority 0 is served sooner"


def test_one_that_waits_no_more_got_a_slot() -> None:
    known = Known()
    known.put("a", "b", "c")
    known.put("c")
    known.put()
    assert known.heard == [({BASE}, {}), ({BASE}, {BASE: 2}), (set(), {BASE: 1})]


def test_those_of_a_peer_that_is_gone_got_none() -> None:
    known = Known()
    known.put("a", "b")
    known.put(peers=frozenset())
    assert known.heard == [({BASE}, {}), (set(), {})]


def test_one_that_waits_here_as_well_gets_one_slot_that_counts_here() -> None:
    known = Known()
    known.put("a", "b", own=("a",))
    assert known.waiting.count_of(BASE, 0) == 1
    assert known.waiting.before("a", 0) is None

    known.put("a", "b")  # It has got a slot from this router, and the peer's follow it there.
    assert known.waiting.count_of(BASE, 0) == 1
    known.put("b")
    known.put("a", "b")  # It waits again.
    assert known.waiting.count_of(BASE, 0) == 2
    assert [granted for _, granted in known.heard] == [{}]

"""Names that peers would reject are not told: they would end the streams between routers."""

from collections.abc import Callable

import pytest

from lora_router.fleet.adapter_beliefs import AWAY
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.prompt import Prompt
from lora_router.peering.failed_loads import FailedLoads
from lora_router.peering.limits import MAX_NAME_BYTES, is_tellable
from lora_router.peering.load_exchange import LoadExchange
from lora_router.peering.prefix_exchange import PrefixExchange
from lora_router.peering.refusal_exchange import RefusalExchange
from lora_router.peering.withdrawals import Withdrawals
from tests.fleet import ManualClock, state_of
from tests.unit.peering.routers import Router, mesh

LONG, BROKEN = "a" * (MAX_NAME_BYTES + 1), "\ud800"
Tell = Callable[[Router, str], None]


class Waits:
    on_refused: Callable[[str, float, int], None]

    def hear_refused(self, *_: object) -> None:
        pytest.fail("nothing is told")


class Lists:
    def take_out(self, state: PodState, names: object) -> None:
        pytest.fail("nothing is told")

    put_back = take_out


def refuse(router: Router, name: str) -> None:
    waits = Waits()
    RefusalExchange(router.hub, router.fleet, waits)
    waits.on_refused(name, 4.0, 0)


def fail(router: Router, name: str) -> None:
    FailedLoads(router.hub, None).tell(name, "it fails", 1.0)  # type: ignore[arg-type]


def withdraw(router: Router, name: str) -> None:
    exchange = Withdrawals(router.hub, router.fleet, Lists())
    exchange.tell(state_of(router.fleet, 1), [name], ends=False)


def load(router: Router, name: str) -> None:
    LoadExchange(router.hub, router.fleet)
    router.fleet.ledger.load_times.on_seen(name, AWAY, 1.0)


def prompt(router: Router, name: str) -> None:
    PrefixExchange(router.hub, router.fleet)
    sent = router.fleet.prefixes.on_sent
    assert sent is not None
    sent(state_of(router.fleet, 1), name, Prompt(1000, (1, 2), (500, 1000)), 0.0)


@pytest.mark.parametrize("tell", [refuse, fail, withdraw, load, prompt])
@pytest.mark.parametrize("name", [LONG, BROKEN], ids=["long", "broken"])
def test_a_name_that_peers_would_reject_is_not_told(tell: Tell, name: str) -> None:
    clock = ManualClock()
    first, second = mesh(clock, "a", "b")
    for make in (LoadExchange, PrefixExchange):
        make(second.hub, second.fleet)
    RefusalExchange(second.hub, second.fleet, Waits())
    FailedLoads(second.hub, None)  # type: ignore[arg-type]
    Withdrawals(second.hub, second.fleet, Lists())
    tell(first, name)
    clock.advance(2.0)
    assert (first.peers(), second.peers()) == (["b"], ["a"])
    assert not any(second.hub.counts.rejected.values())


def test_a_name_of_the_longest_length_is_told() -> None:
    assert is_tellable("a" * MAX_NAME_BYTES)
    assert not is_tellable("\u00e4" * MAX_NAME_BYTES), "bytes count, not characters"

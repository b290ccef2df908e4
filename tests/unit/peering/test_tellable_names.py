"""Names that peers would reject are not told: they would end the streams between routers."""

from collections.abc import Callable

import pytest

from lora_router.fleet.adapter_beliefs import AWAY
from lora_router.fleet.peer_ledgers import HeldShare
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.prompt import Prompt
from lora_router.peering.conversation import is_router_name
from lora_router.peering.failed_loads import FailedLoads
from lora_router.peering.limits import MAX_NAME_BYTES, MAX_ROUTER_NAME_BYTES, is_tellable
from lora_router.peering.load_exchange import LoadExchange
from lora_router.peering.prefix_exchange import NAMES_AT_ONCE, PrefixExchange
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


@pytest.mark.slow
def test_held_adapters_with_long_names_in_any_alphabet_do_not_end_the_streams() -> None:
    clock = ManualClock()
    first, second = mesh(clock, "a", "b")

    first.held = {"😀" * 250 + f"{number:03}": HeldShare(1.0) for number in range(300)}
    clock.advance(2.0)

    assert second.hub.peers["a"].held == first.held.keys()
    assert not any(second.hub.counts.rejected.values())


@pytest.mark.slow
def test_prompts_for_models_with_long_names_do_not_end_the_streams() -> None:
    clock = ManualClock()
    first, second = mesh(clock, "a", "b")
    told, heard = (PrefixExchange(each.hub, each.fleet) for each in (first, second))
    sent = first.fleet.prefixes.on_sent
    assert sent is not None

    for number in range(NAMES_AT_ONCE):
        name = "ä" * 254 + f"{number:03}"
        sent(state_of(first.fleet, 1), name, Prompt(1000, (number + 1,), (1000,)), 0.0)
    clock.advance(2.0)

    assert told.told == heard.heard == NAMES_AT_ONCE
    assert (first.peers(), second.peers()) == (["b"], ["a"])


def test_the_name_of_a_router_is_measured_in_bytes() -> None:
    assert is_router_name("ä" * (MAX_ROUTER_NAME_BYTES // 2), "1.0")
    assert not is_router_name("ä" * (MAX_ROUTER_NAME_BYTES // 2 + 1), "1.0")


def test_a_name_of_the_longest_length_is_told() -> None:
    assert is_tellable("a" * MAX_NAME_BYTES)
    assert not is_tellable("\u00e4" * MAX_NAME_BYTES), "bytes count, not characters"

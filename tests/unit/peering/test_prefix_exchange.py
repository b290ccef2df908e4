"""Routers tell each other which prompts went to which pods."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.prompt import Prompt
from lora_router.peering.limits import MAX_PREFIX_NAMES, MAX_PREFIX_TOKENS
from lora_router.peering.pb import peering_pb2 as pb
from lora_router.peering.pod_keys import pod_key
from lora_router.peering.prefix_exchange import (
    INTERVAL_SECONDS,
    LEAST_TOKENS,
    NAMES_AT_ONCE,
    PrefixExchange,
)
from tests.fleet import ManualClock, make_metrics, make_pod, state_of
from tests.unit.peering.broadcasting import MemoryServer, publishers
from tests.unit.peering.routers import DELAY, Router, mesh

SOON = INTERVAL_SECONDS + 2 * DELAY


def prompt(*chunks: int) -> Prompt:
    """A prompt of chunks of 256 tokens."""
    return Prompt(256.0 * len(chunks), chunks, range(256, 256 * len(chunks) + 1, 256))


def chat(turns: int, number: int = 0) -> Prompt:
    """A turn of a chat. Each turn adds five chunks."""
    return prompt(*(1000 * number + chunk for chunk in range(1, 5 * turns + 1)))


def with_prefixes(*routers: Router) -> list[PrefixExchange]:
    return [PrefixExchange(router.hub, router.fleet) for router in routers]


def show_cache(fleet: Fleet, tokens: float) -> None:
    """Let the page of the first pod show the size of its cache."""
    fleet.put_metrics(state_of(fleet, 1), replace(make_metrics(), cache_tokens=tokens))


def send(router: Router, pod: int, sent: Prompt, model: str = "a") -> None:
    router.fleet.prefixes.sent(state_of(router.fleet, pod), model, sent)


def has(router: Router, asked: Prompt, model: str = "a") -> dict[str, float]:
    """Return how much of a prompt each pod has, as a router sees it."""
    found = router.fleet.prefixes.cached(model, asked)
    return {state.pod.name: tokens for state, tokens in found.items()}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def tell(router: Router, *messages: pb.SentPrompts) -> None:
    """Let a router send what it would not send by itself."""
    router.hub.send_to_all(pb.PeerMessage(sent_prompts=messages).SerializeToString())


def test_the_next_turn_of_a_chat_finds_its_pod_through_any_router(clock: ManualClock) -> None:
    first, second = mesh(clock, "a", "b")
    with_prefixes(first, second)

    send(first, 2, chat(1))
    clock.advance(SOON)

    assert has(second, chat(2)) == {"pod-2": 5 * 256}
    assert has(second, chat(2), model="b") == {}


def test_turns_may_go_through_routers_in_any_order(clock: ManualClock) -> None:
    routers = mesh(clock, "a", "b", "c")
    with_prefixes(*routers)

    for turn in range(1, 10):
        send(routers[turn % 3], 1, chat(turn))
        clock.advance(SOON)
        for router in routers:
            assert has(router, chat(turn + 1)) == {"pod-1": 5 * 256 * turn}


def test_what_another_prompt_shares_is_known_to_a_factor_of_two(clock: ManualClock) -> None:
    first, second = mesh(clock, "a", "b")
    with_prefixes(first, second)

    send(first, 1, prompt(*range(1, 101)))
    clock.advance(SOON)

    asked = prompt(*range(1, 51), *range(500, 550))
    assert has(second, asked) == {"pod-1": 32 * 256}


def test_what_peers_sent_takes_room_once(clock: ManualClock) -> None:
    first, second = mesh(clock, "a", "b")
    with_prefixes(first, second)
    show_cache(second.fleet, 256.0 * 16)
    send(second, 1, prompt(901))

    for turn in range(1, 4):
        send(first, 1, chat(turn))
        clock.advance(SOON)
    assert has(second, prompt(901)) == {"pod-1": 256}

    send(first, 1, chat(1, number=7))
    clock.advance(SOON)
    assert has(second, prompt(901)) == {}


@pytest.mark.slow
def test_a_chat_costs_few_bytes_a_turn(clock: ManualClock) -> None:
    first, second = mesh(clock, "a", "b")
    quiet = first.hub.counts.bytes_sent
    clock.advance(25)
    quiet = first.hub.counts.bytes_sent - quiet
    with_prefixes(first, second)

    before = first.hub.counts.bytes_sent
    for turn in range(1, 101):
        send(first, 1, chat(turn))
        clock.advance(0.25)
    clock.advance(1)

    assert first.hub.counts.bytes_sent - before - quiet < 100 * 50
    assert has(second, chat(100)) == {"pod-1": 500 * 256}


@pytest.mark.slow
def test_what_is_told_at_once_is_bounded(clock: ManualClock) -> None:
    first, second = mesh(clock, "a", "b")
    exchange, heard = with_prefixes(first, second)

    for number in range(5_000):
        send(first, 1, chat(1, number))
    clock.advance(SOON)

    assert heard.heard <= NAMES_AT_ONCE
    clock.advance(20)
    assert exchange.told == heard.heard == 2_000
    assert exchange.untold == 3_000
    # The latest are told.
    assert has(second, chat(1, 4_999)) == {"pod-1": 5 * 256}
    assert has(second, chat(1, 100)) == {}
    assert not any(second.hub.counts.rejected.values())


def test_short_prompts_are_not_told(clock: ManualClock) -> None:
    first, second = mesh(clock, "a", "b")
    _, heard = with_prefixes(first, second)

    send(first, 1, Prompt(LEAST_TOKENS - 1.0, (1,), (200,)))
    clock.advance(1)

    assert heard.heard == 0


def test_what_a_peer_told_is_not_told_on(clock: ManualClock) -> None:
    routers = mesh(clock, "a", "b", "c")
    exchanges = with_prefixes(*routers)

    send(routers[0], 1, chat(1))
    clock.advance(1)

    assert [each.told for each in exchanges] == [1, 0, 0]
    assert [each.heard for each in exchanges] == [0, 1, 1]


@pytest.mark.slow
def test_a_router_that_joins_gets_the_last_prompts(clock: ManualClock) -> None:
    first, second = mesh(clock, "a", "b")
    with_prefixes(first, second)
    show_cache(second.fleet, 1e7)
    for number in range(1_500):
        send(first, 1, chat(1, number))
        clock.advance(0.01)
    clock.advance(3)
    count = second.fleet.prefixes.count

    third = Router("c", clock)
    with_prefixes(third)
    show_cache(third.fleet, 1e7)
    third.connect(first)
    clock.advance(10)

    assert has(third, chat(2, 1_499)) == {"pod-1": 5 * 256}
    assert has(third, chat(2, 600)) == {"pod-1": 5 * 256}
    assert has(third, chat(2, 100)) == {}
    # Another router that gets them again keeps them once.
    assert second.fleet.prefixes.count == count


def test_it_works_over_a_channel_that_all_read(clock: ManualClock) -> None:
    server = MemoryServer(clock)
    first, second = publishers(server, "a", "b")
    with_prefixes(first, second)
    clock.advance(1)

    send(first, 1, chat(1))
    clock.advance(1)

    assert has(second, chat(2)) == {"pod-1": 5 * 256}


def test_an_older_router_ignores_it(clock: ManualClock) -> None:
    first, older = mesh(clock, "a", "b")
    with_prefixes(first)

    send(first, 1, chat(1))
    clock.advance(1)

    assert older.peers() == ["a"]
    assert not any(older.hub.counts.rejected.values())


def test_prompts_on_pods_that_are_gone_are_not_told(clock: ManualClock) -> None:
    first, second = mesh(clock, "a", "b")
    _, heard = with_prefixes(first, second)

    send(first, 1, chat(1))
    first.fleet.remove("pod-1")
    clock.advance(1)

    assert heard.heard == 0


def test_prompts_on_pods_that_a_router_does_not_know_are_ignored(clock: ManualClock) -> None:
    first, second = mesh(clock, "a", "b")
    _, heard = with_prefixes(first, second)

    tell(first, message([5], [1], [100], pod=77))
    clock.advance(1)

    assert (heard.heard, second.fleet.prefixes.count) == (0, 0)
    assert first.peers() == ["b"]


def message(
    names: Sequence[int], counts: Sequence[int], tokens: Sequence[int], *, pod: int = 1
) -> pb.SentPrompts:
    key = pod_key(make_pod(pod))
    return pb.SentPrompts(pod=key, model="a", names=names, name_counts=counts, new_tokens=tokens)


@pytest.mark.parametrize(
    ("wrong", "cause"),
    [
        (message([1, 2], [1], [10]), "malformed"),
        (message([1], [1], []), "malformed"),
        (message([], [0], [10]), "malformed"),
        (message([1], [1], [MAX_PREFIX_TOKENS + 1]), "malformed"),
        (pb.SentPrompts(pod=pod_key(make_pod(1)), model="x" * 5_000), "malformed"),
        (message([7] * (2 * MAX_PREFIX_NAMES), [2 * MAX_PREFIX_NAMES], [1]), "too-large"),
    ],
)
def test_what_is_malformed_ends_the_stream(
    clock: ManualClock, wrong: pb.SentPrompts, cause: str
) -> None:
    first, second = mesh(clock, "a", "b")
    _, heard = with_prefixes(first, second)

    tell(first, wrong)
    clock.advance(0.1)

    assert second.hub.counts.rejected[cause] == 1
    assert heard.heard == 0


@pytest.mark.slow
def test_a_flood_of_prompts_is_ignored(clock: ManualClock) -> None:
    first, second = mesh(clock, "a", "b")
    _, heard = with_prefixes(first, second)

    for _ in range(30):
        tell(first, message([7] * 1_000, [1] * 1_000, [1] * 1_000))
    clock.advance(0.1)

    assert 0 < heard.heard <= 20_000
    assert first.peers() == ["b"]

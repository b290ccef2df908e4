"""For which adapters requests are held, as reported to peers."""

import random
from dataclasses import replace

import pytest

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.peer_ledgers import HeldShare
from lora_router.routing.in_order import InOrder
from lora_router.routing.misplaced import Misplaced
from lora_router.routing.outcome import Routed
from lora_router.routing.roll import Roll
from lora_router.routing.waiting_queue import Held, Queue
from lora_router.routing.waiting_room import WaitingRoom
from tests.fleet import make_fleet, make_metrics
from tests.unit.routing.router import Router

NAMES = [f"a{number}" for number in range(40)]


def fleet_of(pods: int, slots: int) -> Fleet:
    fleet = make_fleet(pods, adapters=NAMES, host_memory=8)
    for state in fleet:
        fleet.put_metrics(state, replace(make_metrics(max_lora=slots), running=0.0))
    return fleet


def looked_up(room: WaitingRoom, now: float) -> dict[str, HeldShare]:
    """Return what is to be told, by a look at everything that waits."""
    found: dict[str, HeldShare] = {}
    firsts: dict[str, Queue] = {}
    for model in room.roll.models:
        for queue in room.roll.of_model(model):
            if queue.hold.optional and queue.line is not None and queue.line.has_room():
                continue
            assert queue.first is not None
            if queue.first.request.adapter is not None:
                wanted = None if queue.hold.wanted is None else queue.hold.wanted.pod.name
                seconds, firsts[model] = now - queue.first.since, queue
                found[model] = HeldShare(seconds, wanted, None, queue.question.priority)
            break
    for owner in room.slots.owners():
        assert owner.closing is not None
        slot = owner.closing[0].pod.name, owner.closing[1]
        adapter = owner.question.model if isinstance(owner, Queue) else owner.adapter
        held = found.get(adapter)
        if held is None and isinstance(owner, Misplaced):
            found[adapter] = HeldShare(now - owner.since, closed=slot)
        elif held is not None and (held.closed is None or firsts[adapter] is owner):
            found[adapter] = HeldShare(held.seconds, held.wanted, slot, held.priority)
    return found


@pytest.mark.parametrize("seed", range(8))
def test_what_is_told_is_what_a_look_at_everything_shows(seed: int) -> None:
    choices = random.Random(seed)
    router = Router(fleet_of(2, choices.choice((1, 2, 4))), max_hold_seconds=20.0)
    router.director.priorities.put({"chat": 1})
    held: list[Held] = []
    running: list[Routed] = []
    for step in range(300):
        event = choices.random()
        if event < 0.5:
            name = choices.choice((*NAMES[:12], "base"))
            query = {"tenant": choices.choice((0, 1, 2)), "objective": choices.choice(("", "chat"))}
            outcome = router.send(name, **query)  # type: ignore[arg-type]
            if isinstance(outcome, Held):
                held.append(outcome)
            elif isinstance(outcome, Routed):
                running.append(outcome)
        elif event < 0.75 and running:
            running.pop(choices.randrange(len(running))).reservation.release()
        elif event < 0.85 and held:
            held.pop(choices.randrange(len(held))).cancel()
        else:
            router.clock.advance(choices.choice((0.0, 0.3, 2.0, 7.0)))
        running += [outcome for _, outcome in router.late if isinstance(outcome, Routed)]
        router.late.clear()
        if step % choices.choice((1, 5)) == 0:
            now, reception = router.clock.now(), router.director.reception
            assert router.director.held_adapters() == looked_up(reception.room, now)


def test_a_report_looks_only_at_what_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    router = Router(fleet_of(1, 1))
    router.routed("a0")
    held = [router.held(name) for name in NAMES[1:]]
    assert len(router.director.held_adapters()) == len(held)
    looked: list[str] = []
    in_order = Roll.in_order

    def noted(roll: Roll, model: str) -> InOrder[Queue]:
        looked.append(model)
        return in_order(roll, model)

    monkeypatch.setattr(Roll, "in_order", noted)

    held[3].cancel()
    router.clock.advance(1.0)
    router.held("a9", tenant=7)
    router.director.held_adapters()

    assert set(looked) == {"a9"}
    assert NAMES[4] not in router.director.held_adapters()


def test_nothing_is_kept_of_adapters_that_wait_no_more() -> None:
    router = Router(fleet_of(1, 1))
    router.routed("a0")
    for name in NAMES[1:]:
        router.held(name).cancel()
    assert not router.director.reception.room.roll.changed
    assert router.director.held_adapters() == {}

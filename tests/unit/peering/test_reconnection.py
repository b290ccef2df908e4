"""When a router opens the next stream to an address."""

import random

import pytest

from lora_router.peering.conversation import Conversation
from lora_router.peering.reconnection import GREETING_SECONDS, Reconnection
from tests.fleet import ManualClock
from tests.unit.peering.routers import Router


@pytest.fixture
def conversation() -> Conversation:
    clock = ManualClock()
    here, there = Router("here", clock), Router("there", clock)
    found = here.connect(there).conversation
    assert found is not None
    return found


@pytest.fixture
def reconnection() -> Reconnection:
    return Reconnection(random.Random(1))


def test_pauses_grow_to_a_second_while_a_peer_refuses(
    conversation: Conversation, reconnection: Reconnection
) -> None:
    pauses = [reconnection.pause_after(conversation, 0.01) for _ in range(20)]
    assert 0.1 <= pauses[0] <= 0.2
    assert 0.5 <= min(pauses[5:]) <= max(pauses) <= 1.0


@pytest.mark.parametrize("lasted", [GREETING_SECONDS, 3600.0])
def test_the_next_attempt_follows_soon_after_silence_and_after_a_stream_that_lasted(
    lasted: float, conversation: Conversation, reconnection: Reconnection
) -> None:
    for _ in range(10):
        reconnection.pause_after(conversation, 0.01)
    assert reconnection.pause_after(conversation, lasted) <= 0.2


def test_addresses_that_are_of_no_use_are_rarely_tried(
    conversation: Conversation, reconnection: Reconnection
) -> None:
    conversation.is_redundant = True
    assert reconnection.pause_after(conversation, 0.01) == 5.0
    conversation.is_itself = True
    assert reconnection.pause_after(conversation, 0.01) == 60.0

"""Routers ask each other what people want to know."""

from collections.abc import Callable, Sequence

import pytest

from lora_router.peering.limits import MAX_ANSWER_BYTES
from lora_router.peering.pb import peering_pb2 as pb
from lora_router.peering.questions import MAX_OPEN, Answers, QuestionExchange
from tests.fleet import ManualClock
from tests.unit.peering.broadcasting import MemoryServer, publishers
from tests.unit.peering.routers import Router, mesh


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def that_answer(
    routers: Sequence[Router], answer: Callable[[str, bytes], bytes]
) -> list[QuestionExchange]:
    """Let routers answer questions."""
    exchanges = []
    for router in routers:
        exchange = QuestionExchange(router.hub)
        exchange.answer = lambda question, reply, name=router.hub.name: reply(
            answer(name, question)
        )
        exchanges.append(exchange)
    return exchanges


def greet(name: str, question: bytes) -> bytes:
    return question + b" from " + name.encode()


def test_every_peer_answers(clock: ManualClock) -> None:
    first, *_ = that_answer(mesh(clock, "a", "b", "c"), greet)
    got: list[Answers] = []

    first.ask(b"hello", got.append)
    clock.advance(0.1)

    assert got == [Answers({"b": b"hello from b", "c": b"hello from c"}, ())]


def test_without_peers_there_are_no_answers(clock: ManualClock) -> None:
    (alone,) = that_answer([Router("a", clock)], greet)
    got: list[Answers] = []

    alone.ask(b"hello", got.append)

    assert got == [Answers({}, ())]


def test_a_long_answer_comes_in_pieces(clock: ManualClock) -> None:
    first, _ = that_answer(mesh(clock, "a", "b"), lambda _name, question: question * 40_000)
    got: list[Answers] = []

    first.ask(b"0123456789", got.append)
    clock.advance(0.1)
    assert not got, "reports are not held up by it"
    clock.advance(1)

    assert got == [Answers({"b": b"0123456789" * 40_000}, ())]


def test_several_answers_to_one_peer_do_not_flood_it(clock: ManualClock) -> None:
    routers = mesh(clock, "a", "b")
    first, _ = that_answer(routers, lambda _name, question: question * 500_000)
    got: list[Answers] = []

    for number in range(4):
        first.ask(str(number).encode(), got.append)
    clock.advance(2.5)

    assert [answers.texts for answers in got] == [
        {"b": str(number).encode() * 500_000} for number in range(4)
    ]
    assert not any(routers[0].hub.counts.rejected.values())


def test_a_peer_that_does_not_answer_is_named(clock: ManualClock) -> None:
    routers = mesh(clock, "a", "b", "old")
    first, _ = that_answer(routers[:2], greet)
    got: list[Answers] = []

    first.ask(b"hello", got.append)
    clock.advance(2.9)
    assert not got
    clock.advance(0.2)

    assert got == [Answers({"b": b"hello from b"}, ("old",))]


def test_a_peer_that_leaves_before_it_answers_is_not_waited_for(clock: ManualClock) -> None:
    routers = mesh(clock, "a", "b")
    first = QuestionExchange(routers[0].hub)
    got: list[Answers] = []

    first.ask(b"hello", got.append)
    clock.advance(0.1)
    routers[1].hub.leave()
    clock.advance(0.1)

    assert got == [Answers({}, ("b",))]


def test_few_questions_are_open_at_the_same_time(clock: ManualClock) -> None:
    first = QuestionExchange(mesh(clock, "a", "b")[0].hub)
    got: list[Answers] = []

    for _ in range(MAX_OPEN + 1):
        first.ask(b"hello", got.append)

    assert got == [Answers({}, ("b",))], "the last one is answered at once, by nobody"


def test_a_peer_that_asks_too_often_gets_no_answers(clock: ManualClock) -> None:
    routers = mesh(clock, "a", "b")
    asked: list[bytes] = []

    def answer(_name: str, question: bytes) -> bytes:
        asked.append(question)
        return b""

    that_answer(routers, answer)
    for number in range(100):
        message = pb.PeerMessage(question=pb.Question(number=number, text=b"again"))
        routers[0].hub.send_to("b", message.SerializeToString())
        clock.advance(0.002)

    assert 20 <= len(asked) <= 25


def test_an_answer_that_is_too_long_ends_the_stream(clock: ManualClock) -> None:
    routers = mesh(clock, "a", "b")
    first = QuestionExchange(routers[0].hub)
    got: list[Answers] = []
    first.ask(b"hello", got.append)

    piece = pb.Answer(number=1, piece=bytes(200_000), more_follows=True)
    for _ in range(MAX_ANSWER_BYTES // 200_000 + 2):
        routers[1].hub.send_to("a", pb.PeerMessage(answer=piece).SerializeToString())
        clock.advance(0.11)
    clock.advance(3)

    assert routers[0].hub.counts.rejected["too-large"] == 1
    assert got == [Answers({}, ("b",))]


def test_routers_on_a_channel_answer_the_one_that_asked(clock: ManualClock) -> None:
    routers = publishers(MemoryServer(clock), "a", "b", "c")
    first, *_ = that_answer(routers, greet)
    got: list[Answers] = []

    first.ask(b"hello", got.append)
    clock.advance(0.5)

    assert got == [Answers({"b": b"hello from b", "c": b"hello from c"}, ())]

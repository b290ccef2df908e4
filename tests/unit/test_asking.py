"""Who answers the questions of peers, and which orders of peers are refused."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

from lora_router.asking import Asking
from lora_router.debug.questions import Question, encode, read_answer
from lora_router.peering.questions import QuestionExchange
from lora_router.supervision import Supervisor

ORDER = encode(Question("order", {"action": "sync"}))


async def _answer(_question: bytes) -> bytes:
    raise AssertionError("the order reached this process")


def _refusal(loads: Callable[[], bool] | None) -> str:
    """Return the error with which a peer refuses an order."""
    exchange = SimpleNamespace(answer=None)
    Asking("b", _answer, cast("QuestionExchange", exchange), Supervisor(), loads=loads)
    answers: list[bytes] = []
    assert exchange.answer is not None
    exchange.answer(ORDER, answers.append)
    (answer,) = answers
    return read_answer(answer).error


def test_an_order_that_peers_may_not_give_is_refused_with_the_name_of_the_router_that_loads() -> (
    None
):
    error = _refusal(lambda: True)
    assert error.startswith("the router that loads adapters, b, takes orders of its peers only")


def test_a_peer_that_does_not_load_leaves_the_answer_to_the_one_that_does() -> None:
    assert not _refusal(lambda: False)


def test_a_worker_says_where_its_host_takes_orders() -> None:
    assert "give the order at the admin port of the host that loads adapters" in _refusal(None)

"""What an algorithm raises affects only the request at hand, unless somebody pressed Ctrl-C."""

import asyncio
import signal
from collections.abc import Iterator

import pytest

from lora_router.routing.algorithm import Algorithm, InferenceRequest, Noted, Pick
from lora_router.routing.answer_check import FAILED, AlgorithmCaller
from lora_router.routing.candidates import Candidates
from lora_router.routing.fallback import Fallbacks
from lora_router.routing.recollection import Recollection
from tests.fleet import make_fleet

RAISED = [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError]


@pytest.fixture
def in_a_router() -> Iterator[None]:
    """Handle SIGINT elsewhere, as the event loop of a router does."""
    before = signal.signal(signal.SIGINT, lambda _number, _frame: None)
    yield
    signal.signal(signal.SIGINT, before)


class Raises:
    """An algorithm of which every method raises."""

    name = "raises"

    def __init__(self, error: type[BaseException]) -> None:
        self._error = error

    def pick(self, *_arguments: object) -> Pick:
        raise self._error

    def accepts(self, *_arguments: object) -> bool:
        raise self._error

    def recall(self, _notes: object) -> list[Noted]:
        raise self._error


def ask(algorithm: Algorithm) -> str:
    candidates = Candidates.of(make_fleet(2).serving("base").pods)
    request = InferenceRequest("base", None)
    answer = AlgorithmCaller().ask(algorithm, request, candidates, 0.0)
    assert isinstance(answer, Pick)
    return answer.reason


@pytest.mark.usefixtures("in_a_router")
@pytest.mark.parametrize("error", RAISED)
def test_a_request_whose_algorithm_raises_is_routed_without_it(error: type[BaseException]) -> None:
    assert ask(Raises(error)) == FAILED


@pytest.mark.usefixtures("in_a_router")
@pytest.mark.parametrize("error", RAISED)
def test_a_request_whose_fallbacks_cannot_be_found_has_none(error: type[BaseException]) -> None:
    fleet = make_fleet(3)
    candidates = Candidates.of(fleet.serving("base").pods)
    request = InferenceRequest("base", None)
    finder = Fallbacks(1, lambda: len(fleet.ready()))

    assert finder.of(Raises(error), request, candidates[0], candidates) == ()


@pytest.mark.usefixtures("in_a_router")
@pytest.mark.parametrize("error", RAISED)
def test_notes_that_cannot_be_read_are_no_candidates(error: type[BaseException]) -> None:
    assert Recollection({"raises": Raises(error)}).recall("raises", 1, "pod-1", "") == ()


@pytest.fixture
def in_a_terminal() -> Iterator[None]:
    """Python's own handler, as in a terminal. In the background of a shell, SIGINT is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("in_a_terminal")
def test_ctrl_c_ends_a_simulation() -> None:
    with pytest.raises(KeyboardInterrupt):
        ask(Raises(KeyboardInterrupt))

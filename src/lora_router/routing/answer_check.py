"""Asks an algorithm and checks its answer. A fault affects only the request at hand.

An answer is used only if it is a ``Pick`` of a candidate or a ``Hold``, with a string as its reason
and with numbers where numbers are required. In all other cases (also if the algorithm raises, even
``SystemExit``), least-request picks instead, and the router logs the cause at a limited rate.
"""

import logging
import math
import random

from lora_router.fleet.pod_state import PodState
from lora_router.log_limit import LogLimit
from lora_router.routing.algorithm import Algorithm, Hold, InferenceRequest, Pick, WakesOn
from lora_router.routing.candidates import Candidates
from lora_router.routing.interrupt import let_interrupt_pass
from lora_router.routing.least_request import least_loaded

log = logging.getLogger("lora_router.routing")

FAILED = "algorithm-failed"
"""The reason of a pick by least-request in place of an algorithm that failed."""
_LOG_SECONDS = 10.0


class AnswerError(ValueError):
    """An algorithm's answer cannot be used. The message states what is wrong with it."""


class AlgorithmCaller:
    """Asks algorithms, and replaces answers that cannot be used."""

    def __init__(self) -> None:
        self._random = random.Random()
        self._log_limit = LogLimit(_LOG_SECONDS)

    def ask(
        self, algorithm: Algorithm, request: InferenceRequest, candidates: Candidates, now: float
    ) -> Pick | Hold:
        """Return an algorithm's answer, or least-request's in its place."""
        try:
            answer = algorithm.pick(request, candidates, now)
            if type(answer) is Pick and answer.pod in candidates.members:
                if type(answer.reason) is str and 0.0 <= answer.tokens < math.inf:
                    return answer
            elif type(answer) is Hold:
                return checked(answer, candidates)
            raise AnswerError(_what_is_wrong(answer))
        except BaseException as error:
            let_interrupt_pass(error)
            self._log_limit.log(
                log,
                logging.ERROR,
                (FAILED, algorithm.name),
                "algorithm %s failed, falling back to least-request: %s: %s",
                algorithm.name,
                type(error).__name__,
                error,
                exc_info=None if isinstance(error, AnswerError) else error,
            )
        return Pick(least_loaded(candidates, self._random), FAILED)


def checked(hold: Hold, candidates: Candidates) -> Hold:
    """Return the ``Hold`` if it can be used.

    Raises:
        AnswerError: It cannot be used. The message names the field.
    """
    if type(hold.reason) is not str:
        raise AnswerError(f"Hold.reason is {type(hold.reason).__name__}, must be str")
    _check_seconds("Hold.seconds", hold.seconds)
    if hold.seconds <= 0:
        raise AnswerError(f"Hold.seconds is {hold.seconds!r:.40}, must be above 0")
    if hold.ask_again is not None:
        _check_seconds("Hold.ask_again", hold.ask_again)
        if hold.ask_again < 0:
            raise AnswerError(f"Hold.ask_again is {hold.ask_again!r:.40}, must not be negative")
    if not isinstance(hold.wakes_on, WakesOn):
        raise AnswerError("Hold.wakes_on is not a WakesOn")
    if hold.wanted is not None and hold.wanted not in candidates.members:
        raise AnswerError("Hold.wanted is not a candidate")
    if hold.closed is not None:
        pod, adapter = hold.closed
        if not isinstance(pod, PodState) or type(adapter) is not str:
            raise AnswerError("Hold.closed is not a pod and the name of an adapter")
    return hold


def _check_seconds(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise AnswerError(f"{name} is {value!r:.40}, must be a number of seconds")


def _what_is_wrong(answer: object) -> str:
    if not isinstance(answer, Pick):
        return f"the answer is {type(answer).__name__}, must be Pick or Hold"
    if type(answer) is not Pick:
        return "the answer is a subclass of Pick"
    if type(answer.reason) is not str:
        return f"Pick.reason is {type(answer.reason).__name__}, must be str"
    if not 0.0 <= answer.tokens < math.inf:
        return f"Pick.tokens is {answer.tokens!r:.40}, must be a number from 0"
    return "Pick.pod is not a candidate"

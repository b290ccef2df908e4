"""Loads and unloads of adapters go to every pod of their base model, not to one of them.

An adapter that is loaded on one pod only makes that pod hot, and an unload that reaches one pod
leaves the others. So the router sends such a request to all pods itself, and answers the client
when they have answered. Rules:

- The pods are the ready ones that ``external-filter`` and the gateway's subset allow. If the body
  names a base model (``model`` or ``base_model_name``), only its pods count. Otherwise these are
  the pods of the adapter's base model, if a list of models says which that is.
- The answer is 200 if all pods succeeded, else the status of the first one that failed. It lists
  what each pod said. A pod that does not have the adapter to unload did not fail, unless none has
  it.
- The lists of the pods are read again at once.
- A client that leaves does not stop it: that would leave some pods different from the others.
"""

import logging
from collections.abc import Callable, Sequence

import msgspec

from lora_router.counted import counted
from lora_router.extproc.errors import ErrorAnswer, busy_answer, refusal_answer
from lora_router.fleet.pod_calls import CallsPods, PodRequest, PodResult
from lora_router.fleet.pod_state import PodState
from lora_router.routing.director import Director
from lora_router.routing.refusal import Refusal, Refused

log = logging.getLogger("lora_router.extproc")

MAX_CALLS = 4
"""Requests to every pod at a time. Each keeps its body until all pods have answered."""
SHORTEST_SECONDS = 3.0
"""Time that the pods have at least, where requests may not be held for that long."""
_NOT_FOUND = 404
_REDIRECTION = 300


class _Load(msgspec.Struct):
    """What the body of a load or an unload may say of pods."""

    model: str | None = None
    base_model_name: str | None = None
    lora_name: str | None = None


_decoder = msgspec.json.Decoder(_Load)


class Calling:
    """A request whose pods have not all answered."""

    __slots__ = ("on_answer", "seconds")

    def __init__(self, seconds: float, on_answer: Callable[[ErrorAnswer], None]) -> None:
        self.seconds = seconds
        self.on_answer: Callable[[ErrorAnswer], None] | None = on_answer

    def cancel(self) -> None:
        """Do not answer, because the client has left. The pods are called nevertheless."""
        self.on_answer = None


class EveryPod:
    """Sends requests to every pod."""

    def __init__(self, director: Director, pods: CallsPods) -> None:
        """Create it.

        Args:
            director: Has the fleet, and narrows it by filter and subset.
            pods: Sends the requests.
        """
        self.calls = 0
        """Requests whose pods have not all answered."""
        self._fleet = director.fleet
        self._finder = director.reception.finder
        self._seconds = max(SHORTEST_SECONDS, director.max_hold_seconds)
        self._pods = pods

    def call(
        self,
        request: PodRequest,
        pod_filter: str | None,
        subset: frozenset[str] | None,
        on_answer: Callable[[ErrorAnswer], None],
    ) -> Calling | ErrorAnswer:
        """Send a request to every pod.

        Args:
            request: The client's request.
            pod_filter: Its label selector, if any.
            subset: The endpoints that the gateway allows.
            on_answer: Called once, later, with the answer to the client.
        """
        states = self._targets(request.body, pod_filter, subset)
        if isinstance(states, Refused):
            return refusal_answer(states)
        if self.calls >= MAX_CALLS:
            return busy_answer("Too many requests to all pods run. Retry later.")
        self.calls += 1
        calling = Calling(self._seconds, on_answer)
        self._pods.call(
            states, request, self._seconds, lambda results: self._done(calling, request, results)
        )
        return calling

    def _targets(
        self, body: bytes, pod_filter: str | None, subset: frozenset[str] | None
    ) -> Sequence[PodState] | Refused:
        among = self._finder.among(self._fleet.ready(), pod_filter, subset)
        if isinstance(among, Refused):
            return among
        states = [state for state in among if isinstance(state, PodState)]
        if not states:
            return Refused(Refusal.NO_READY_POD)
        try:
            named = _decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return states  # Pods say what is wrong with it.
        base = named.model or named.base_model_name
        if base:
            serving = [state for state in states if base in state.catalog]
            return serving or Refused(Refusal.UNKNOWN_MODEL, model=base)
        adapter = named.lora_name or ""
        bases = {state.adapters[adapter] for state in states if adapter in state.adapters}
        of_base = [state for state in states if not bases.isdisjoint(state.base_models)]
        return of_base or states

    def _done(self, calling: Calling, request: PodRequest, results: Sequence[PodResult]) -> None:
        self.calls -= 1
        failed = _failures(results, is_unload="unload" in request.path)
        log.info(
            "%s was sent to %s, %d of them failed%s",
            request.path.partition("?")[0],
            counted(len(results), "pod"),
            len(failed),
            f"; {failed[0].state.pod.name}: {failed[0].status}" if failed else "",
        )
        self._fleet.changes.doubted.send([result.state for result in results])
        if calling.on_answer is not None:
            calling.on_answer(_answer(results, failed))


def _failures(results: Sequence[PodResult], *, is_unload: bool) -> list[PodResult]:
    failed = [result for result in results if not 200 <= result.status < _REDIRECTION]
    if is_unload and len(failed) < len(results):
        return [result for result in failed if result.status != _NOT_FOUND]
    return failed


def _answer(results: Sequence[PodResult], failed: Sequence[PodResult]) -> ErrorAnswer:
    document: dict[str, object] = {}
    status, code, message = 200, "every_pod", ""
    if failed:
        first = failed[0]
        status, code = first.status, "pods_failed"
        message = (
            f"{len(failed)} of {counted(len(results), 'pod')} failed. The first one is "
            f"{first.state.pod.name} with status {first.status}."
        )
        kind = "invalid_request_error" if status < 500 else "api_error"
        document["error"] = {"message": message, "type": kind, "param": None, "code": code}
    document["pods"] = [
        {
            "pod": result.state.pod.name,
            "address": result.state.pod.address,
            "status": result.status,
            "answer": result.text,
        }
        for result in results
    ]
    headers = (("content-type", b"application/json"),)
    return ErrorAnswer(status, code, headers, msgspec.json.encode(document))

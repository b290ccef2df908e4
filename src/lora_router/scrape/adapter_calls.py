"""Loads adapters into pods and unloads them, and tells the fleet what that changed.

The calls are vLLM's (``/v1/load_lora_adapter``) and SGLang's (``/load_lora_adapter``). They carry
the router's key for pods: the operator declared the adapters. (``pod_calls`` passes on what clients
ask for, without that key.)

Nothing of an answer is believed but its status, and which of a few kinds of errors its text names.
At most ``_ANSWER_BYTES`` of it are read.
"""

import asyncio
import errno
import json
import logging
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Protocol

import aiohttp

from lora_router.adapters.calls import MAX_MESSAGE_LENGTH, Call, Outcome, Result
from lora_router.connection_error import reason_of
from lora_router.fleet.pod_state import PodState
from lora_router.scrape.answer_start import answer_start
from lora_router.scrape.bounded_connection import BoundedConnector
from lora_router.scrape.intake import Intake, RefusedReading
from lora_router.scrape.pod_access import PodAccess
from lora_router.supervision import Supervisor

log = logging.getLogger("lora_router.adapters")

_ANSWER_BYTES = 4096
_MOST_UNREADABLE = 0.1
"""Share of the characters of a text that may not be UTF-8."""
SGLANG = "sglang"
_NO_ROUTE = "not found"
"""The whole message of an answer of status 404 if the server has no such call (FastAPI)."""
_NO_CALLS = frozenset((405, 501))
_NOT_ALLOWED = frozenset((401, 403))
_OWN_FAULTS = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EADDRNOTAVAIL))
NO_ROUTE_HINT = (
    "it has no call to load adapters; vLLM needs --enable-lora and the environment variable "
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
)
NOT_ALLOWED_HINT = "it does not accept the router's key; see the setting pod_api_key_file"


class ReadsLists(Protocol):
    """Reads the lists of pods, and puts them into the fleet."""

    @property
    def intake(self) -> Intake:
        """The way into the fleet."""

    def read_models_soon(self, state: PodState, *, confirms: bool = True) -> None:
        """Read a pod's list of models again."""

    def models_changed(self, state: PodState) -> None:
        """Hand on a pod's list, which a call of this router has changed."""


class TellsWithdrawals(Protocol):
    """Tells other routers which adapters get no more requests on a pod (``withdrawals``)."""

    def tell(self, state: PodState, names: Collection[str], *, ends: bool) -> None:
        """Tell them that adapters are withdrawn, or no longer. They are told until it ends."""

    def unloaded(self, state: PodState, name: str) -> None:
        """Tell them that an adapter that was withdrawn is unloaded."""


class AdapterCalls:
    """Calls pods over HTTP. It is the loader's ``LoadsAdapters``."""

    def __init__(
        self,
        lists: ReadsLists,
        supervisor: Supervisor,
        access: PodAccess,
        *,
        seconds: float = 120.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create it.

        Args:
            lists: Takes in what calls change.
            supervisor: Runs the calls.
            access: The keys for pods, and whose certificates are accepted.
            seconds: Timeout of one call.
            clock: Returns seconds, monotonic.
        """
        self._lists = lists
        self._supervisor = supervisor
        self._access = access
        self._seconds = seconds
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self.tells: TellsWithdrawals | None = None
        """Tells other routers what is withdrawn."""

    async def close(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    # What the loader calls

    def start(self, call: Call, on_done: Callable[[Result], None]) -> None:
        """Begin a call, in the background. See ``LoadsAdapters``."""
        self._supervisor.once("adapter-call", self._run(call, on_done), about=call.state.pod.name)

    def withdraw(self, state: PodState, names: Collection[str]) -> None:
        """Take adapters out of the fleet's list of a pod. See ``LoadsAdapters``."""
        self._apply(state, lambda intake: intake.withdraw(state, names))
        if self.tells is not None:
            self.tells.tell(state, names, ends=False)

    def restore(self, state: PodState, names: Collection[str]) -> None:
        """Put adapters into the fleet's list of a pod again. See ``LoadsAdapters``."""
        self._apply(state, lambda intake: intake.restore(state, names))
        if self.tells is not None:
            self.tells.tell(state, names, ends=True)

    def read_again(self, state: PodState) -> None:
        """Read the list of a pod soon. See ``LoadsAdapters``."""
        self._lists.read_models_soon(state)

    # What another router that loads has withdrawn

    def take_out(self, state: PodState, names: Collection[str]) -> None:
        """Take adapters out of the fleet's list of a pod, because a peer unloads them."""
        with suppress(RefusedReading):  # The pod has left.
            self._lists.intake.withdraw(state, names)

    def put_back(self, state: PodState, names: Collection[str]) -> None:
        """Put adapters into the list again that were taken out, if the pod lists them."""
        with suppress(RefusedReading):
            self._lists.intake.restore(state, names)

    def _apply(self, state: PodState, change: Callable[[Intake], None]) -> str:
        """Change the fleet's list of a pod; return why that was impossible, or nothing."""
        try:
            change(self._lists.intake)
        except RefusedReading as error:
            return str(error)
        self._lists.models_changed(state)
        return ""

    # One call

    async def _run(self, call: Call, on_done: Callable[[Result], None]) -> None:
        began = self._clock()
        outcome: Outcome = "failed"
        message = "the call was cancelled"
        try:
            outcome, message = await self._ask(call)
        except Exception as error:
            message = f"internal error: {type(error).__name__}"
            raise
        finally:
            on_done(self._result(call, outcome, message, self._clock() - began))

    def _result(self, call: Call, outcome: Outcome, message: str, seconds: float) -> Result:
        state, name = call.state, call.name
        if outcome == "done" and call.is_doubted:
            return Result("already", seconds)
        if outcome == "done" and call.action == "load":
            base = call.base_model or next(iter(state.base_models), "")
            refused = self._apply(state, lambda intake: intake.add_adapter(state, name, base))
            if refused:
                return Result("failed", seconds, refused)
            if self.tells is not None:
                # Others may have withdrawn it a moment ago.
                self.tells.tell(state, (name,), ends=True)
            # Soon the pod itself says what it lists.
            self._lists.read_models_soon(state, confirms=False)
        elif call.action == "unload" and outcome in {"done", "already"}:
            self._apply(state, lambda intake: intake.remove_adapter(state, name))
            if self.tells is not None:
                self.tells.unloaded(state, name)
        return Result(outcome, seconds, message[:MAX_MESSAGE_LENGTH])

    async def _ask(self, call: Call) -> tuple[Outcome, str]:
        engine = call.state.pod.engine
        if engine == SGLANG and call.in_place:
            return "refused", "SGLang cannot replace an adapter in place; give it a version"
        try:
            async with asyncio.timeout(self._seconds):
                status, message = await self._post(call, is_sglang=engine == SGLANG)
                if engine is None and _lacks_route(status, message) and not call.in_place:
                    status, message = await self._post(call, is_sglang=True)
        except TimeoutError:
            return "timeout", f"no answer within {self._seconds:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            text = reason_of(error)
            if isinstance(error, OSError) and error.errno in _OWN_FAULTS:
                return "failed", f"this router cannot call it: {text}"
            return "unreachable", text
        return outcome_of(call, status, message)

    async def _post(self, call: Call, *, is_sglang: bool) -> tuple[int, str]:
        pod, access = call.state.pod, self._access.current
        path = f"{'' if is_sglang else '/v1'}/{call.action}_lora_adapter"
        async with self._open_session().post(
            f"{pod.scheme}://{pod.address}{path}",
            data=json.dumps(_document(call, is_sglang=is_sglang)).encode(),
            headers={"content-type": "application/json", **access.api_headers},
            ssl=access.tls,
            server_hostname=self._access.server_name,
            allow_redirects=False,
        ) as response:
            text = await answer_start(response, _ANSWER_BYTES)
            return response.status, message_of(text)

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # A connection for each call: vLLM closes idle ones after 5 s. The loader limits the
                # calls: one that waited for a connection would take the time of another one.
                connector=BoundedConnector(limit=0, force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                headers={"user-agent": "lora-router", "accept-encoding": "identity"},
                timeout=aiohttp.ClientTimeout(total=None),
            )
        return self._session


def _document(call: Call, *, is_sglang: bool) -> Mapping[str, object]:
    document: dict[str, object] = {"lora_name": call.name}
    if call.action == "load":
        document["lora_path"] = call.source
        if not is_sglang and call.base_model is not None:
            document["base_model_name"] = call.base_model
        if call.in_place:
            document["load_inplace"] = True
    return document


def outcome_of(call: Call, status: int, message: str) -> tuple[Outcome, str]:
    """Return what an answer says, and why the call failed."""
    text = message.lower()
    if 200 <= status < 300:
        return "done", ""
    if _lacks_route(status, message):
        return "cannot-load", NO_ROUTE_HINT
    if status in _NOT_ALLOWED:
        return "cannot-load", f"{NOT_ALLOWED_HINT} (status {status})"
    if 400 <= status < 500 and status not in {408, 429}:
        if call.action == "load":
            is_known = "already" in text and "loaded" in text
        else:
            is_known = status == 404 or "cannot be found" in text or "not loaded" in text
        return ("already" if is_known else "refused"), _said(status, message)
    return "failed", _said(status, message)


def _said(status: int, message: str) -> str:
    if 300 <= status < 400:
        return f"status {status}: it redirects, which is not followed"
    return f"status {status}: {message or 'it does not say why'}"


def _lacks_route(status: int, message: str) -> bool:
    if status in _NO_CALLS:
        return True
    return status == 404 and message.strip().rstrip(".").lower() in {"", _NO_ROUTE}


def message_of(body: bytes) -> str:
    """Return what the body of an answer says, as one line of printable characters.

    Args:
        body: The first bytes of the body.
    """
    text = body.decode(errors="replace")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    for name in ("error", "error_message", "message", "detail"):
        if isinstance(document, dict) and name in document:
            document = document[name]
            if isinstance(document, dict):
                document = document.get("message", document)
            text = document if isinstance(document, str) else str(document)
            break
    if text.count("\N{REPLACEMENT CHARACTER}") > len(text) * _MOST_UNREADABLE:
        return "its answer is no text"
    shown = "".join(each if each.isprintable() else " " for each in text[:_ANSWER_BYTES])
    return " ".join(shown.split())[:MAX_MESSAGE_LENGTH]

"""Notices gateways that do not show the router how requests end.

Three faults are noticed:

- *Closed early*: streams end before the answers. Requests then count as in flight for too short a
  time. Envoy 1.40 closes streams early in some body modes if ``response_trailer_mode`` is not SEND.
  The evidence is streams that are reset at once although the answer takes time: it is a stream of
  events, or the client asked for one and Envoy sends no response headers. One answer may be fast,
  so the fault is noticed after many such streams in a row. One stream that stays open disproves it.
  Each body mode is judged by itself.

  A stream that is half-closed at once is no evidence: its client left. Envoy makes a half-close and
  a reset in both cases. Where it closes a stream early, it does so while it reads the router's last
  message, and then the reset discards the half-close. When a client leaves, the half-close is sent
  first (seen with 1.40, in all modes). ``grpc.aio`` may show a half-close and a reset as a reset
  alone, so with that transport this fault is not noticed.
- *No response headers*: routed requests end, and the router saw no answer. A client may leave
  before its answer, and Envoy ends both streams in the same way. So this fault is noticed after
  many such requests in a row, and its words name this cause, too.
- *No response bodies*: the router asked for the bodies of answers that contain new IDs, or state
  numbers of tokens, and none arrived. Requests that name these IDs then find no pod, and tokens are
  not counted. The body of a document follows its headers at once. That of a stream of events takes
  time, in which the client may leave, so more of these are needed.

A fault is logged once, and ``/readyz`` names it as long as it lasts. The router stays ready.
"""

import logging
import time
from collections.abc import Callable

from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode

log = logging.getLogger("lora_router.extproc")

EARLY_SECONDS = 0.01
"""A stream that is reset within this time after the router's last message is closed early."""
LASTING_SECONDS = 0.1
"""A stream that stays open for this time is not closed early."""
EARLY_IN_A_ROW = 32
"""Streams in a row that are closed early before the fault is noticed."""
UNSEEN_IN_A_ROW = 100
"""Requests in a row that end without an answer before the fault is noticed."""
BODIES_IN_A_ROW = 5
"""Documents in a row whose body was asked for and did not arrive before the fault is noticed."""
EVENTS_IN_A_ROW = 100
"""Streams of events in a row, likewise."""

_MODES = (*ProcessingMode.BodySendMode.keys(), "UNKNOWN")
_NO_ANSWERS = (
    f"the gateway sent no response headers for the last {UNSEEN_IN_A_ROW} requests or more, or no "
    "pod answered them before their clients left; the router does not see which pods fail; set "
    "response_header_mode: SEND in the processing_mode of the gateway's ext_proc filter"
)
_NO_BODIES = (
    "the gateway does not send the bodies of answers that the router asks for: those that contain "
    "IDs, such as those of /v1/responses, and, with the setting tokens, those that state numbers "
    "of tokens, or many clients leave before these begin; requests that name these IDs find no "
    "pod, and tokens are not counted; set allow_mode_override: true in its ext_proc filter, or, "
    "where Envoy ignores overrides, response_body_mode: STREAMED for these paths"
)


class GatewayFaults:
    """What the ends of streams show about the gateway."""

    __slots__ = ("_early", "closed_early", "events_without_body", "now", "unseen", "without_body")

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Create it for a gateway that is not known yet.

        Args:
            now: Returns seconds, monotonic.
        """
        self.now = now
        self.closed_early = 0
        """Streams that were closed early, of those modes in which the fault was noticed."""
        self.unseen = 0
        """Requests in a row that ended without an answer."""
        self.without_body = 0
        """Documents in a row whose body was asked for and did not arrive."""
        self.events_without_body = 0
        """Streams of events in a row, likewise."""
        self._early = [0] * len(_MODES)
        """Streams in a row that were closed early, by body mode."""

    def answer_seen(self) -> None:
        """Record that the gateway sent response headers."""
        if self.unseen >= UNSEEN_IN_A_ROW:
            log.info("the gateway sends response headers")
        self.unseen = 0

    def ended_unseen(self) -> None:
        """Record that a routed request ended, and that the gateway sent no response headers."""
        self.unseen += 1
        if self.unseen == UNSEEN_IN_A_ROW:
            log.warning("%s", _NO_ANSWERS)

    def body_seen(self) -> None:
        """Record that the gateway sent the body of an answer."""
        if self._lacks_bodies:
            log.info("the gateway sends the bodies of answers that the router asks for")
        self.without_body = self.events_without_body = 0

    def ended_without_body(self, *, event_stream: bool) -> None:
        """Record that a body was asked for, and that the request ended without it.

        Args:
            event_stream: Whether the answer is a stream of events, and no document.
        """
        noticed = self._lacks_bodies
        if event_stream:
            self.events_without_body += 1
        else:
            self.without_body += 1
        if self._lacks_bodies and not noticed:
            log.warning("%s", _NO_BODIES)

    @property
    def _lacks_bodies(self) -> bool:
        return self.without_body >= BODIES_IN_A_ROW or self.events_without_body >= EVENTS_IN_A_ROW

    def stream_ended(self, body_mode: int, seconds: float, *, is_reset: bool) -> None:
        """Record the end of a stream whose answer takes time.

        Args:
            body_mode: The mode of the request body.
            seconds: Time since the router's last message on the stream.
            is_reset: Whether the gateway reset the stream without a half-close.
        """
        # The mode is a number from outside.
        mode = body_mode if 0 <= body_mode < len(_MODES) else -1
        early = self._early[mode]
        if seconds < EARLY_SECONDS:
            if not is_reset:
                return
            self._early[mode] = early = early + 1
            if early == EARLY_IN_A_ROW:
                self.closed_early += early
                log.warning("%s", _closed_early(_MODES[mode]))
            elif early > EARLY_IN_A_ROW:
                self.closed_early += 1
        elif early and seconds >= LASTING_SECONDS:
            self._early[mode] = 0
            if early >= EARLY_IN_A_ROW:
                log.info("the gateway keeps streams open in request body mode %s", _MODES[mode])

    def status(self) -> dict[str, object]:
        """Return the fields that ``/readyz`` shows: the faults, if there are any."""
        faults = [
            _closed_early(name)
            for name, early in zip(_MODES, self._early, strict=True)
            if early >= EARLY_IN_A_ROW
        ]
        if self.unseen >= UNSEEN_IN_A_ROW:
            faults.append(_NO_ANSWERS)
        if self._lacks_bodies:
            faults.append(_NO_BODIES)
        return {"gateway_faults": faults} if faults else {}


def _closed_early(mode: str) -> str:
    return (
        "the gateway closes ext_proc streams before the answers end, in request body mode "
        f"{mode}; requests count as in flight for too short a time; set response_trailer_mode: "
        "SEND in the processing_mode of its ext_proc filter"
    )

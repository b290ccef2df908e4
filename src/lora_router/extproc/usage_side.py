"""The part of an exchange that reads how many tokens the request took, from its answer.

Envoy sends the router the body of an answer only if the router asks for it, with the answer to the
headers. ``usage_reading`` says of which answers. Each piece passes at once and unchanged. What it
states goes into the record of the request, and to Envoy with the answer to the piece. So what a
stream that is cut has stated before counts, too.
"""

import logging

from lora_router.extproc.context import SessionContext
from lora_router.extproc.events import Message, ResponseHeaders
from lora_router.extproc.path_rules import PathRule
from lora_router.extproc.recording import Recording
from lora_router.extproc.usage_metadata import usage_metadata
from lora_router.extproc.usage_reading import UsageReading
from lora_router.extproc.usage_search import UsageSearch
from lora_router.routing.outcome import Routed

log = logging.getLogger("lora_router.extproc")


class UsageSide(Recording):
    """What an exchange knows of the tokens of its request."""

    __slots__ = ("_asks_usage", "_usage")

    def __init__(self, context: SessionContext) -> None:
        super().__init__(context)
        self._asks_usage = False
        """Whether the request asks a stream for the numbers."""
        self._usage: UsageSearch | None = None
        """Set while they are read."""

    def _begin_usage(
        self, reading: UsageReading, answer: ResponseHeaders, rule: PathRule | None
    ) -> bool:
        """Return whether the body of an answer is needed, because it may state the numbers."""
        if not reading.reads(answer, rule, asked=self._asks_usage):
            return False
        self._usage = UsageSearch(event_stream=answer.event_stream)
        return True

    def _read_usage(self, search: UsageSearch, piece: Message, *, ends: bool) -> bytes:
        """Read a piece of the answer. Return the metadata for Envoy; empty: nothing is new."""
        if not search.began:
            self.context.gateway.body_seen()
        try:
            changed = search.add(piece, ends=ends)
        except Exception as error:  # Whatever an answer states, its client gets it.
            self._usage = None
            message = "failed to read the numbers of tokens in an answer"
            self.context.log_limit.log(log, logging.ERROR, message, message, exc_info=error)
            return b""
        return self._stated(search) if changed else b""

    def _end_usage(self, search: UsageSearch) -> bytes:
        """Take in that the answer ends with trailers. Return the metadata for Envoy likewise."""
        return self._stated(search) if search.end() else b""

    def _stated(self, search: UsageSearch) -> bytes:
        usage, decision = search.usage, self._decision
        if decision is not None:
            decision.prompt_tokens = usage.prompt
            decision.completion_tokens = usage.completion
            decision.cached_tokens = usage.cached
        return usage_metadata(usage)

    def _count_usage(self, search: UsageSearch, routed: Routed | None) -> None:
        """Count what an answer stated, at the end of its stream, and learn from it.

        It shows how long tokens are, and how much of prompts the pod's cache has room for.
        """
        reading = self.context.usage
        if reading is not None:
            usage = search.usage
            if usage.is_known:
                reading.counts.stated += 1
                if routed is not None and routed.prompt is not None and usage.prompt is not None:
                    reservation = routed.reservation
                    model = reservation.adapter or routed.model
                    self.context.lengths.learn(model, routed.prompt.size, usage.prompt)
                    if reservation.prefixes is not None:
                        reservation.prefixes.stated(usage.prompt, usage.cached, reservation.path)
            else:
                reading.counts.missing += 1

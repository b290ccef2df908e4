"""Which answers are read for their numbers of tokens (setting ``tokens``)."""

import logging
from dataclasses import dataclass, field

from lora_router.extproc.answer_names import is_named
from lora_router.extproc.events import ResponseHeaders
from lora_router.extproc.path_rules import PathRule, UsageIn
from lora_router.telemetry.usage_counts import UsageCounts

log = logging.getLogger("lora_router.extproc")

_PLAIN = ("", "identity")
"""Values of ``content-encoding`` of an answer that the router can read."""
_OK, _REDIRECTION = 200, 300


@dataclass(frozen=True, slots=True)
class UsageReading:
    """What all sessions share for it."""

    every_stream: bool = False
    """Whether streams are read whose requests do not ask for the numbers, too."""
    counts: UsageCounts = field(default_factory=UsageCounts)

    def reads(self, answer: ResponseHeaders, rule: PathRule | None, *, asked: bool) -> bool:
        """Return whether an answer is read. Count it if it would be, but is compressed.

        Args:
            answer: How it begins.
            rule: The rule of its path; ``None``: no rule has the path.
            asked: Whether the request asks a stream for the numbers.
        """
        if answer.ends or not _OK <= answer.answer.status < _REDIRECTION:
            return False
        states = UsageIn.ALL if rule is None else rule.usage
        if states is UsageIn.NONE or not is_named(answer.content_type):
            return False
        if states is UsageIn.ASKED and answer.event_stream and not (asked or self.every_stream):
            return False
        if answer.content_encoding.lower() not in _PLAIN:
            self.counts.encoded += 1
            return False
        return True


def usage_reading(
    tokens: str, are_recorded: bool, body_mode: str = "buffered"
) -> UsageReading | None:
    """Return which answers are read, or ``None`` if none is.

    Args:
        tokens: The setting.
        are_recorded: Whether decisions are recorded, by which metrics count tokens.
        body_mode: The setting ``envoy_body_mode``.
    """
    if tokens == "off":
        return None
    if not are_recorded:
        log.warning(
            "setting tokens: no metric counts tokens, because decisions are not recorded (setting "
            "decisions); Envoy learns the numbers as dynamic metadata"
        )
    if body_mode != "buffered":
        log.warning(
            "setting tokens: with envoy_body_mode %s, Envoy sends the router all answers on the "
            "paths whose answers state numbers of tokens, streams without them, too",
            body_mode,
        )
    return UsageReading(every_stream=tokens == "all")

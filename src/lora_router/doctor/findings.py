"""What the doctor says."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

MOST_NAMED = 5
"""Pods, adapters or others that a finding names. The rest is counted."""


class Severity(StrEnum):
    """How bad it is."""

    ERROR = "error"
    """Requests fail, or soon will."""
    WARNING = "warning"
    """It costs, or it is about to become an error."""
    HINT = "hint"
    """It may cost, or cannot be seen from here."""


ORDER = tuple(Severity)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong or costs."""

    check: str
    """The name of the check, by which docs/doctor.md lists it."""
    severity: Severity
    what: str
    """What was seen, in one sentence."""
    why: str
    """Why it matters, with what it costs where that was measured."""
    fix: str
    """What to set or do."""


def named(names: Sequence[str]) -> str:
    """Return some names as a text: the first ones, and how many there are besides."""
    shown = ", ".join(names[:MOST_NAMED])
    more = len(names) - MOST_NAMED
    return f"{shown} and {more} more" if more > 0 else shown

"""What a file of recorded requests says, whatever its format."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from lora_router.simulator.key_kinds import shown
from lora_router.simulator.no_value import ratio
from lora_router.simulator.trace import MOST_TOKENS

MOST_REQUESTS = 10_000_000
"""Requests of a file. A request takes some 300 bytes of memory."""
LONGEST_LINE = 1 << 20
"""Characters of a line."""


_ORDER = ("at", "model", "prompt_tokens", "output_tokens")


class TraceError(ValueError):
    """A trace file cannot be used. The message says where and why."""


class RecordedRequest(NamedTuple):
    """One request of a recording."""

    at: float
    """Seconds, from any moment."""
    prompt_tokens: int
    output_tokens: int
    model: str = ""
    """Empty if the recording does not name adapters."""
    session: int | str | None = None
    """Requests of one chat have the same. ``None``: a chat of one request."""
    blocks: Sequence[int] = ()
    """Names of the blocks of the prompt. Equal beginnings of two prompts have equal names."""
    block_tokens: int = 1
    """Tokens of a block."""


@dataclass(frozen=True, slots=True)
class Recording:
    """The requests of a file, in order of their times, from 0."""

    path: Path
    requests: tuple[RecordedRequest, ...]
    names_models: bool
    format: str
    """The name of the file's format."""

    @property
    def seconds(self) -> float:
        """Time of the last request."""
        return self.requests[-1].at

    @property
    def rate(self) -> float:
        """Requests per second on average. It has no value if all of them come at once."""
        return ratio(len(self.requests), self.seconds)


def recording_of(
    path: Path, requests: Iterable[RecordedRequest], *, names_models: bool, form: str
) -> Recording:
    """Return the recording of a file.

    Raises:
        TraceError: It has no requests, or too many.
    """
    found: list[RecordedRequest] = []
    for request in requests:
        if len(found) == MOST_REQUESTS:
            raise TraceError(f"{path}: has more than {MOST_REQUESTS:,} requests")
        found.append(request)
    if not found:
        raise TraceError(f"{path}: has no requests")
    # Stable: requests of the same moment stay in the order of the file, unless they name models.
    found.sort(key=attrgetter(*_ORDER) if names_models else attrgetter("at"))
    first = found[0].at
    return Recording(
        path,
        tuple(request._replace(at=request.at - first) for request in found),
        names_models,
        form,
    )


def whole_number(where: str, name: str, value: object, *, least: int = 0) -> int:
    """Return a number of tokens.

    Args:
        where: The file and the line, for the error.
        name: The column or key.
        value: What stands there: a text or a JSON value.
        least: The smallest number that is allowed.

    Raises:
        TraceError: It is no whole number within the bounds.
    """
    number = value
    if isinstance(value, str):
        try:
            number = int(value)
        except ValueError:
            number = None
    if isinstance(number, bool) or not isinstance(number, int):
        number = None
    if number is None or not least <= number <= MOST_TOKENS:
        raise refusal(where, name, value, f"a whole number from {least} to {MOST_TOKENS:,}")
    return number


def finite_number(where: str, name: str, value: object) -> float:
    """Return a time.

    Raises:
        TraceError: It is no number from 0 to 10^15.
    """
    try:
        number = float(value) if isinstance(value, str | int | float) else float("nan")
    except (ValueError, OverflowError):
        number = float("nan")
    if isinstance(value, bool) or not 0 <= number <= _LATEST:
        raise refusal(where, name, value, f"a number from 0 to {_LATEST:.0e}")
    return number


_LATEST = 1e15
"""Milliseconds since 1970, with room to spare. A float has parts of a second beyond."""


def refusal(where: str, name: str, value: object, allowed: str) -> TraceError:
    """Return the error for a value that is not allowed."""
    return TraceError(f"{where}: {name}: must be {allowed}, not {shown(value)}")

"""BurstGPT's traces: CSV with ``Timestamp,Model,Request tokens,Response tokens`` and others.

Source: HPMLL/BurstGPT; Wang et al., arXiv:2401.17644. ``Timestamp`` is in seconds. Later files also
have ``Session ID``. ``Model`` is ChatGPT or GPT-4, no adapter. Requests
without an answer failed, and are left out.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from lora_router.simulator.recorded.csv_rows import csv_rows
from lora_router.simulator.recorded.recording import (
    RecordedRequest,
    finite_number,
    refusal,
    whole_number,
)

NAME = "burstgpt"
COLUMNS = ("Timestamp", "Request tokens", "Response tokens")
_SESSION = "Session ID"
_LONGEST_SESSION = 256


def read(path: Path, lines: Iterable[str]) -> Iterator[RecordedRequest]:
    """Yield the requests.

    Raises:
        TraceError: A line is not such a request.
    """
    for where, row in csv_rows(path, lines, COLUMNS, (_SESSION,)):
        session = row.get(_SESSION) or None
        if session is not None and len(session) > _LONGEST_SESSION:
            raise refusal(where, _SESSION, session, f"at most {_LONGEST_SESSION} characters")
        at = finite_number(where, "Timestamp", row["Timestamp"])
        prompt = whole_number(where, "Request tokens", row["Request tokens"])
        output = whole_number(where, "Response tokens", row["Response tokens"])
        if output:
            yield RecordedRequest(at, prompt, output, session=session)

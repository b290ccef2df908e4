"""Our own format: CSV with the columns ``timestamp,model,prompt_tokens,output_tokens``.

Timestamps are in seconds and may start at any value. Every model but ``base`` is an adapter.
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

NAME = "csv"
COLUMNS = ("timestamp", "model", "prompt_tokens", "output_tokens")
_LONGEST_NAME = 256


def read(path: Path, lines: Iterable[str]) -> Iterator[RecordedRequest]:
    """Yield the requests.

    Raises:
        TraceError: A line is not such a request.
    """
    for where, row in csv_rows(path, lines, COLUMNS):
        model = row["model"]
        if not model or len(model) > _LONGEST_NAME:
            raise refusal(where, "model", model, f"a name of 1 to {_LONGEST_NAME} characters")
        yield RecordedRequest(
            finite_number(where, "timestamp", row["timestamp"]),
            whole_number(where, "prompt_tokens", row["prompt_tokens"]),
            whole_number(where, "output_tokens", row["output_tokens"], least=1),
            model,
        )

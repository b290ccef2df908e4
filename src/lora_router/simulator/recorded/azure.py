"""Azure's traces of LLM inference: CSV with ``TIMESTAMP,ContextTokens,GeneratedTokens``.

Source: Azure/AzurePublicDataset, 2023 and 2024; Patel et al., Splitwise, ISCA 2024.

They name neither chats nor prompts, so every request is a session. Requests without an answer are
left out.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from lora_router.simulator.recorded.csv_rows import csv_rows
from lora_router.simulator.recorded.recording import RecordedRequest, refusal, whole_number

NAME = "azure"
COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


def read(path: Path, lines: Iterable[str]) -> Iterator[RecordedRequest]:
    """Yield the requests.

    Raises:
        TraceError: A line is not such a request.
    """
    for where, row in csv_rows(path, lines, COLUMNS):
        at = _seconds(where, row["TIMESTAMP"])
        prompt = whole_number(where, "ContextTokens", row["ContextTokens"])
        output = whole_number(where, "GeneratedTokens", row["GeneratedTokens"])
        if output:
            yield RecordedRequest(at, prompt, output)


def _seconds(where: str, value: str | None) -> float:
    try:
        time = datetime.fromisoformat(value or "")
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise refusal(
            where, "TIMESTAMP", value, "a date and time such as 2023-11-16 18:15:46.6805900"
        ) from None

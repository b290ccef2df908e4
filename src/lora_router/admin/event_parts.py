"""The kinds of events that the page gets."""

from collections.abc import Callable

from lora_router.admin.viewed_rows import Part, Row

FRESH_SECONDS = 10.0
"""A scrape that is younger is shown as fresh."""
_STEP_SECONDS = 5.0


def _rounded(name: str, digits: int) -> Callable[[Row], None]:
    def settle(row: Row) -> None:
        if row[name] is not None:
            row[name] = round(row[name], digits)

    return settle


def _settle_pod(row: Row) -> None:
    age = row["age_seconds"]
    if age is not None:
        row["age_seconds"] = 0 if age < FRESH_SECONDS else int(age // _STEP_SECONDS * _STEP_SECONDS)
    if row["cache_use"] is not None:
        row["cache_use"] = round(row["cache_use"], 2)


def _settle_adapter(row: Row) -> None:
    for failing in row["failing"]:
        del failing["next_try_seconds"]  # It counts down, which the page does not show.


def _needs_attention(row: Row) -> bool:
    return bool(row["health"] != "healthy" or row["state"] != "ready" or row["age_seconds"])


PARTS = (
    Part(
        "fleet",
        "pods",
        key=("name",),
        most=2_000,
        settle=_settle_pod,
        urgent=_needs_attention,
    ),
    Part(
        "held",
        "held",
        key=("router", "request_id", "model"),
        most=200,
        queries=({"limit": "200"},),
        unlike=frozenset({"seconds"}),
    ),
    Part(
        "decisions",
        "decisions",
        key=("router", "number"),
        most=200,
        # Ordinary ones pass quickly where there are many. Abnormal ones stay longer.
        queries=({"limit": "100"}, {"limit": "100", "abnormal": "true"}),
    ),
    Part(
        "adapters",
        "adapters",
        key=("name", "base_model"),
        most=200,
        queries=({"limit": "200"},),
        every=2,
        settle=_settle_adapter,
    ),
    Part(
        "routers",
        "routers",
        key=("name",),
        most=200,
        every=2,
        unlike=frozenset({"uptime_seconds"}),
        settle=_rounded("loop_lag_seconds", 3),
    ),
)
"""In the order in which viewers get them."""

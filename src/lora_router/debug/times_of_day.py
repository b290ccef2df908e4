"""Times of day in words."""

from datetime import UTC, datetime


def time_of_day(at: float, form: str) -> str:
    """Return a time in UTC; "at an unknown time" if there is no such time.

    Args:
        at: Seconds since 1970, as some router states it.
        form: The format, as of ``strftime``.
    """
    try:
        return datetime.fromtimestamp(at, UTC).strftime(form)
    except (OverflowError, ValueError, OSError):
        return "at an unknown time"

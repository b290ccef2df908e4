"""Whole numbers in texts that others wrote."""


def whole_number(text: str, least: int, most: int) -> int | None:
    """Return the number that a text of ASCII digits states; ``None``: it is none, or out of bounds.

    A text of any length takes little time.

    Args:
        text: The text. Zeros at its beginning are allowed.
        least: The smallest number.
        most: The largest one.
    """
    if not (text.isascii() and text.isdigit()):
        return None
    digits = text.lstrip("0") or "0"
    if len(digits) > len(str(most)):
        return None
    number = int(digits)
    return number if least <= number <= most else None


def is_port(text: str) -> bool:
    """Return whether a text states a port from 1 to 65535, in at most five digits."""
    return len(text) < 6 and whole_number(text, 1, 65535) is not None

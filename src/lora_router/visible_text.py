"""Text that others wrote, so that a terminal or a reader of lines is not misled by it."""


def visible(text: str, *, lines: bool = False) -> str:
    """Return text whose unprintable characters are written as escapes, as in Python.

    Names come from clients and from pods. A terminal would obey what is in them.

    Args:
        text: The text.
        lines: Whether it may have several lines.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or (lines and character == "\n")
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )

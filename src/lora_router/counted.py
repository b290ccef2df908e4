"""Numbers of things, in log lines, errors, and what commands print."""


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with the noun in the form that fits: ``1 pod``, ``2,000 pods``.

    Args:
        number: How many there are.
        one: The noun for one.
        many: The noun for another number, if it is not ``one`` with an ``s``.
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"

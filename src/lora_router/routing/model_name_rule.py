"""Which names of models a request may have. What explains requests has the same rule."""

MAX_MODEL_LENGTH = 512
"""In characters. Model names are paths or repository names; this is twice the longest of them."""


def why_invalid(model: str) -> str:
    """Return what is wrong with the name of a model. Empty: nothing, and a header can have it."""
    if len(model) > MAX_MODEL_LENGTH:
        return f"is longer than {MAX_MODEL_LENGTH} characters"
    if not model.isprintable():
        # Control characters, line ends, lone surrogates, invisible characters.
        return "contains characters that are not printable"
    if model != model.strip():
        # Leading and trailing spaces are lost in a header.
        return "begins or ends with a space"
    return ""

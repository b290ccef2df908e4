"""How many examples a property is tried with, where it needs more or fewer than most."""

from hypothesis import settings

_USUAL = 100


def examples(usual: int, *, steps: int = 50) -> settings:
    """Return settings with that many examples for each 100 of a usual property.

    ``make test`` tries half as many, ``make test-fast`` a tenth, ``make fuzz`` 20 times as many.

    Args:
        usual: How many are tried where a property without settings is tried with 100.
        steps: How many steps a state machine takes at most.
    """
    profile = settings()
    return settings(
        profile,
        max_examples=max(1, usual * profile.max_examples // _USUAL),
        stateful_step_count=steps,
    )

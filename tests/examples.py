"""How many examples a property is tried with, where it needs more or fewer than most."""

from hypothesis import settings

_USUAL = 100


def examples(usual: int, *, steps: int = 50) -> settings:
    """Return settings with that many examples in the usual profile, and in others as many more.

    ``make test-fast`` tries a tenth, ``make fuzz`` twenty times as many.

    Args:
        usual: How many the usual profile tries.
        steps: How many steps a state machine takes at most.
    """
    profile = settings()
    return settings(
        profile,
        max_examples=max(1, usual * profile.max_examples // _USUAL),
        stateful_step_count=steps,
    )

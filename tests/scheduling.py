"""Gives groups of tests to the workers of pytest-xdist."""

from xdist.scheduler import LoadScopeScheduling

from tests.groups import group_of


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Gives each group to one worker, in the order of the tests."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)

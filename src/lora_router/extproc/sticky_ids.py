"""Decides where a request goes that names an ID: to the pod that made it, or to the client."""

from lora_router.extproc.errors import ErrorAnswer, id_answer
from lora_router.extproc.id_search import NamedId
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.made_ids import MadeIds
from lora_router.fleet.pod_state import PodState


class StickyIds:
    """The IDs that pods made, and what is done about others."""

    def __init__(self, fleet: Fleet, made: MadeIds, *, pass_unknown: bool = False) -> None:
        """Create it.

        Args:
            fleet: The pods.
            made: The IDs that are known.
            pass_unknown: Whether a request with an unknown ID goes to any pod. It is refused
                otherwise, unless there is only one pod that can have made the ID.
        """
        self.made = made
        self._fleet = fleet
        self._pass_unknown = pass_unknown

    def maker(self, named: NamedId) -> PodState | ErrorAnswer | None:
        """Return the pod that made an ID.

        Returns:
            The pod; an error for the client; ``None``: route as if the request named no ID.
        """
        server = self.made.find(named.name)
        if server is not None:
            address, uid = server
            state = self._fleet.at(address)
            if state is not None and state.pod.uid == uid:
                return state
        if self._pass_unknown or len(self._fleet.ready()) <= 1:
            return None
        return id_answer(named.kind, named.name, named.param, is_gone=server is not None)

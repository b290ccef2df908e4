"""What a router and its peers tell each other beside reports, put together once for all routers."""

from lora_router.fleet.fleet import Fleet
from lora_router.peering.hub import Hub
from lora_router.peering.load_exchange import LoadExchange
from lora_router.peering.prefix_exchange import PrefixExchange
from lora_router.peering.refusal_exchange import RefusalExchange
from lora_router.routing.director import Director


def connect(hub: Hub, fleet: Fleet, director: Director) -> None:
    """Let a router tell its peers what it learns, and learn from them.

    Args:
        hub: All peers. It calls the parts from now on.
        fleet: The router's pods.
        director: Holds and refuses the router's requests.
    """
    reception = director.reception
    reception.on_held = hub.report_soon
    PrefixExchange(hub, fleet)
    LoadExchange(hub, fleet)
    RefusalExchange(hub, fleet, reception.room.waits)

"""*Peers*: what it costs that several routers decide about the same pods.

A slot in another router's allotment (``fleet/slot_allotment.py``) is worth a short wait. That other
copies of an adapter drain is a term of its own (``copies``).
"""

TURN_PRICE = 8.0
"""Price of waiting for a slot in another router's allotment. A lower value makes requests wait to
avoid a load that takes no longer than the wait. A higher value makes pods fetch adapters from a
remote store although another pod has them."""

"""The bounds of what one peer may send, and of what is kept of it.

A peer is another router, but it may be faulty or compromised. Each bound limits memory, or the time
that the event loop spends on it. A router keeps to the same bounds when it sends.
"""

MAX_MESSAGE_BYTES = 256 * 1024
"""Length of a message. A longer report is sent in parts."""
PART_ROWS = 2_000
"""Rows and names in a part that this router sends: about 2 ms of work."""
MAX_PART_ROWS = 16_000
"""Rows and names in a part that this router accepts. Other versions may send longer parts."""
PART_NAME_BYTES = 96 * 1024
"""Bytes of names in a part that this router sends."""
MAX_PARTS = 256
MAX_ROUTER_NAME_BYTES = 256
"""Length of a router's name. Reports acknowledge those of all peers in one part."""

MAX_NAME_BYTES = 1024
"""Length of a name. Kubernetes allows 253 for a pod. Model names have no limit of their own."""
MAX_PODS = 20_000
MAX_ADAPTERS = 50_000
MAX_ROUTERS = 256
"""Names in the three tables of one peer."""
MAX_NAMES_BYTES = 8 * 1024 * 1024
"""Bytes of all names of one peer."""
MAX_COUNTS = 100_000
"""Adapters in flight of one peer, on all pods."""
MAX_ADAPTERS_PER_POD = 1024
"""Adapters of one peer on one pod. A pod does not run more requests at the same time."""
MAX_REQUESTS = 1_000_000
"""Requests of one peer on one pod."""
MAX_HELD = 1024
"""Adapters that one peer holds requests for."""
MAX_EJECTED = 10_000
MAX_SENT_MS = 600_000
"""Milliseconds that a pod needs for the prompts of one report."""
REPORT_USED = 4_000
"""Adapters that were used, in a report that this router sends: about 2 ms of work."""
MAX_USED = 4 * REPORT_USED
"""Adapters that were used, in a report that this router accepts."""
MAX_USED_SECONDS = 86_400.0
MAX_HELD_SECONDS = 86_400.0

MAX_IDS = 4_000
"""IDs in a message."""
IDS_BURST, IDS_PER_SECOND = 40_000, 10_000
"""IDs of one peer. Those beyond are ignored, because a lost ID costs one request."""

MAX_FAILED_LOADS = 100
"""Adapters that cannot be loaded, in a message."""
MAX_FAILED_SECONDS = 3_600.0
FAILED_LOADS_BURST, FAILED_LOADS_PER_SECOND = 1_000, 200
"""Such adapters of one peer. Those beyond are ignored: requests for them wait in vain."""

MAX_WITHDRAWALS = 1_000
"""Adapters that are about to be unloaded, in a message."""
MAX_WITHDRAWN_SECONDS = 60.0
WITHDRAWALS_BURST, WITHDRAWALS_PER_SECOND = 4_000, 400
"""Such adapters of one peer. Those beyond are ignored: a request for one of them may fail."""

MAX_LOAD_TIMES = 128
"""Loads of adapters in a message."""
LOAD_TIMES_BURST, LOAD_TIMES_PER_SECOND = 512, 128
"""Loads of one peer. Those beyond are ignored. A router tells as many as this in a second."""

MAX_EARLY_REFUSALS = 128
"""Adapters that were refused slots early, in a message."""
MAX_REFUSED_SECONDS = 120.0
EARLY_REFUSALS_BURST, EARLY_REFUSALS_PER_SECOND = 2_048, 512
"""Such adapters of one peer. Those beyond are ignored. A router tells as many as this in a second.
A hundred of them show overload as well as a thousand do."""

MAX_PREFIX_NAMES = 2_000
"""Names of prompts in a message: 2 ms of work."""
MAX_PREFIX_TOKENS = 16 * 1024 * 1024
"""Tokens of a prompt."""
PREFIX_NAMES_BURST, PREFIX_NAMES_PER_SECOND = 20_000, 4_000
"""Names of prompts of one peer. Those beyond are ignored. A router sends half as many."""

MAX_QUESTION_BYTES = 16 * 1024
"""Length of what one router asks another."""
MAX_ANSWER_BYTES = 4 * 1024 * 1024
ANSWER_PIECE_BYTES = 24 * 1024
QUESTIONS_BURST, QUESTIONS_PER_SECOND = 20, 10
"""Questions of one peer. Those beyond are not answered."""

MAX_PEERS = 32
"""Peers. Each is sent every report, so that the cost of a mesh grows with the square."""
MAX_WORKERS = 32
"""Workers of one router, each of which is a peer."""
MAX_BROADCAST_PEERS = 128
"""Peers that publish where all listen. Each report is sent once, and read by all."""
MAX_STREAMS = 4 * MAX_PEERS
"""Streams of peers that others opened."""
MAX_FOLLOWING = 4
"""Messages that may follow a report before it is known to be on its way."""
MAX_WEIGHT = 64 * 1024 * 1024
"""Bytes that the reports of all peers take, as estimated by ``ReportReader.weight``."""
ROW_BYTES = 100
"""Memory of one row."""

MESSAGES_BURST, MESSAGES_PER_SECOND = 1000, 200
"""Messages of one stream: several times those that a router sends."""
BYTES_BURST, BYTES_PER_SECOND = 16 * 1024 * 1024, 2 * 1024 * 1024
"""Bytes of one stream."""
ROUTER_MESSAGES_PER_SECOND = 60
"""Messages that a router sends at most in a second, apart from some more when it begins."""
MAX_BROADCAST_BYTES = MAX_MESSAGE_BYTES + 4096
"""Length of a message and what is published with it."""
MAX_STATE_BYTES = 8 * 1024 * 1024
"""Length of a stored state. A longer one is not stored."""
CHANNEL_MESSAGES_PER_SECOND = (MAX_BROADCAST_PEERS + 1) * ROUTER_MESSAGES_PER_SECOND
CHANNEL_MESSAGES_BURST = 2 * CHANNEL_MESSAGES_PER_SECOND
"""Messages of all routers that publish on a channel, this one's included. More are a flood, whoever
sends them."""
CHANNEL_BYTES_BURST, CHANNEL_BYTES_PER_SECOND = 64 * 1024 * 1024, 16 * 1024 * 1024


def byte_length(name: str) -> int:
    """Return the bytes that a name has in a message.

    Raises:
        UnicodeEncodeError: It is not valid Unicode, and cannot be in a message.
    """
    return len(name) if name.isascii() else len(name.encode())


def is_tellable(name: str) -> bool:
    """Return whether peers accept a name: it is valid Unicode, and not longer than the bound.

    Pods choose names. A message with another one would end the stream.
    """
    try:
        return byte_length(name) <= MAX_NAME_BYTES
    except UnicodeEncodeError:
        return False

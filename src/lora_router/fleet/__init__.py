"""What the router knows: pods, their last metrics, and the requests it has in flight.

Everything here lives on one event loop and is changed by plain calls, never across an ``await``,
so whoever reads it always sees a consistent state without a lock. Nothing here does I/O: discovery
and the scraper write, algorithms read.
"""

"""The fleet: pods, their last snapshots, and the requests that this router has in flight.

All state here belongs to one event loop. Every change is a synchronous call without an ``await`` in
between. A reader therefore always sees a consistent state and needs no lock. Nothing here does I/O:
discovery and the scraper write, and algorithms read.
"""

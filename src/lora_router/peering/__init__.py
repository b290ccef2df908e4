"""Routers of one fleet that report to each other what they know, over gRPC on their own port.

Each router sends its ledger, what it holds, and which pods it ejected to all others, ten times a
second, and at once when something changed that others wait for. Nothing on the request path waits
for a peer. A lost message costs quality for a moment, never a request.
"""

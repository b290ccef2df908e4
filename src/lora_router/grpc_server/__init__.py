"""gRPC over HTTP/2 for one kind of client, a gateway: see ``docs/transport.md``.

Everything but ``server`` is without I/O: bytes in, bytes out.
"""

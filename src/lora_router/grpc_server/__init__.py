"""A gRPC server over HTTP/2 for one kind of client, a gateway. See ``docs/transport.md``.

Only ``server`` and ``wire`` do I/O. All other modules take bytes and return bytes.
"""

"""Several processes behind one port: ``workers: N``.

The parent discovers and scrapes pods, serves the admin port, and accepts connections. It hands
each connection to the worker that has the fewest, and what it learned of the pods to all workers.
Workers serve gateways. They are peers of each other.

``parent`` and ``worker`` are the two kinds of processes. What passes between them goes through
socket pairs that the parent creates: nobody else can reach them, and they need no directory.
"""

"""Active-standby replication: of several routers, the one that holds a Lease leads.

``election`` is the state without I/O. ``candidate`` reads, watches and writes the Lease through a
``LeaseStore``, of which ``kubernetes_lease`` is the one for Kubernetes. ``leadership`` is the part
of the router: it publishes whether this router leads.
"""

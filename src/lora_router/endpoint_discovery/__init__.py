"""Tells Envoys which pods exist, over Envoy's endpoint discovery service (EDS).

An Envoy whose cluster of pods has the policy ``override_host`` sends a request only to a pod that
it knows. The router is the source of that list: the same port, no shared file, any number of Envoys
and of routers. Without a router, an Envoy keeps the last list.
"""

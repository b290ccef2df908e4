"""Adapters as a resource of the fleet: declared once, loaded where they belong.

``declared`` and ``declarations`` say which adapters there should be, ``places`` where each belongs,
and ``loader`` brings the fleet there, one load or unload at a time. Nothing here does I/O.
"""

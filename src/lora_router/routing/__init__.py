"""Choosing a pod: the algorithm interface, the algorithms, and the director that asks them.

An algorithm of your own takes twenty lines; see ``lora_router.routing.algorithm``.
"""

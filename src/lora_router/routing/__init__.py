"""Routing: the algorithm interface, the built-in algorithms, and the director that asks them.

You can write an algorithm of your own in about twenty lines; see ``lora_router.routing.algorithm``.
"""

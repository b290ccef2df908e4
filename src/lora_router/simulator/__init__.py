"""Simulated vLLM pods: a model of the engine's slots and queue, its pages, and HTTP around them."""

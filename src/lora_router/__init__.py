"""A LoRA-aware request router for Envoy: picks the vLLM pod for every OpenAI-style request."""

__version__ = "0.1.0"

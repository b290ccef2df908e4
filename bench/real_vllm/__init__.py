"""Two real vLLM servers whose adapters the router loads: see ``__main__``."""

"""``lora-router demo``: a real Envoy, simulated pods, and the same load for each algorithm."""

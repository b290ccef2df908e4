"""What the router shows of itself: pods, adapters, held requests, decisions, explanations."""

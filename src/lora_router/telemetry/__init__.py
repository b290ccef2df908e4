"""What the router reports of itself: metrics and logs."""

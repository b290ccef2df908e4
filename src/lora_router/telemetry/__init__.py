"""What the router tells of itself: metrics and logs."""

"""What this host reports: the status of its Host and of its placements, and what it has reported before."""

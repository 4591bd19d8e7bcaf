"""The only code that talks to the Kubernetes API: requests, watches kept in memory, leader election."""

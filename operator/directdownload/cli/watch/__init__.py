"""Waits with progress: for `deploy --wait`, `status --watch` and `certificate … --wait`."""

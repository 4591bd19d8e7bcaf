"""A pool's files: their names, locks and records, and how a part becomes a published file."""

"""The reports of this host: the status of its Host and of its placements, and the ledger of earlier reports."""

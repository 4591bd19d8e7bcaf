"""Decisions: pure functions of the desired and the observed state and the time; no I/O, no clock, no client."""

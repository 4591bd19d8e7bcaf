"""Sharing a content with other hosts: a Seed records the pieces of what it fetches, a Peer fetches them from hosts.

Loaded only for a job whose document has `peers`.
"""

"""Hosts that serve each other: a library for controller, jobs and agent, and the peer server of a host.

It knows no Kubernetes. `statements` are signed texts, `piecelog` the file in which a host keeps what pieces it has, and
`protocol` what hosts say to each other.
"""

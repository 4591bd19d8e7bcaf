"""Reads, writes and locks files of a host that others write as well, and finds their mounts."""

"""Volumes of pods on this host: what they need, what they have, and the answers to the plugin that mounts them."""

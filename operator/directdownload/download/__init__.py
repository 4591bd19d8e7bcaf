"""The download engine: fetches a file from a source, verifies it, and publishes it atomically.

A library with a small door: `engine.fetch` for whoever has a URL and a path, `job` for whoever has a job document.
Imports neither kopf nor kubernetes: a job must start in a fraction of a second.
"""

"""The download engine: fetches a file from a source, verifies it, and publishes it atomically.

A library with two entries: `engine.fetch` for a URL and a path, `job` for a job document. Imports neither kopf nor
kubernetes: a job must start in a fraction of a second.
"""

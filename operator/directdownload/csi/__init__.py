"""The CSI node plugin of one host: mounts template files into pods. It knows no cluster; the agent of the host does.

`main` is its door. It stays small, as it runs on every host: no pydantic, no client of Kubernetes, no HTTP client.
"""

"""Direct download of VM templates onto KVM hosts: a Kubernetes operator, its agent, its jobs and its command line."""

__version__ = "0.2.0"

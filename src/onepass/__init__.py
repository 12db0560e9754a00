"""OnePass: one kubeconfig for every Kubernetes cluster.

The rooms and which may import which are drawn in docs/architecture.md. Importing this package does nothing.
"""

__version__ = "0.1.0"

"""Ordered, versioned bytes behind one small contract.

Never knows what Kubernetes is: keys and values are bytes to it.
"""

"""What Envoy asks a control plane over gRPC: delta ADS for any resources, and the companions of its streams.

Never knows a cluster or a user: resources are names, versions and bytes to it, and metadata is metadata.
"""

"""Delta ADS for any resources: subscription, snapshot, stream.

Never knows a cluster or a user: resources are names, versions and bytes to it.
"""

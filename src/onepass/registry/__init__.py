"""The nouns: a generic store driven by one strategy a kind, and the mirror that hot paths read.

The only writer of objects; never sends a request to anything but the storage.
"""

"""The nouns that a client may send: kinds, metadata, errors.

Pure: never imports another room of OnePass.
"""

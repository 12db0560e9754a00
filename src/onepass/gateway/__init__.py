"""Objects to Envoy: an intermediate representation, the messages made of it, and gatekeeper.lua with its tables.

Pure: the same objects give the same bytes; never does I/O.
"""

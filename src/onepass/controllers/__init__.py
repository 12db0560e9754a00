"""Verbs that follow the objects: publish, sign, probe, rotate, expire; each a loop with one worker a key.

Never serves a request and never keeps a truth of its own: what it knows, it can rebuild from the objects.
"""

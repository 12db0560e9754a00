"""The commands a person types; each talks to the API like any other client.

Never reaches into storage, keys or the registry: what kubectl cannot do, a command here cannot do either.
"""

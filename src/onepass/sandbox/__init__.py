"""Small member clusters whose containers are local processes, for trying OnePass and for testing it.

Never listens on anything but loopback.
"""

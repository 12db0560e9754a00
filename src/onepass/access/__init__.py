"""Who asks, what a request asks for, and whether the rules allow it.

Pure: clocks and policies come in as arguments; never reads an object store.
"""

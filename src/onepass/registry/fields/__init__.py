"""Who set which field: typed values, sets of fields, and their owners, as server-side apply has them.

Pure: never knows a kind by name, never reads a clock or a database.
"""

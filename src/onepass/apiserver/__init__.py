"""The front door for API requests: filters, handlers, encodings, patches, tables, discovery, OpenAPI.

Never touches storage except through a registry store, and knows no kind by name.
"""

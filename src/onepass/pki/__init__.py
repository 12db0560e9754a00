"""Keys, certificates, tokens and sealed credentials: values in, values out.

Never logs a key and never decides who may have a certificate.
"""

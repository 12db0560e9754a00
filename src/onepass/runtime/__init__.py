"""The only place where parts are built and tasks are started: settings, serving, the Envoy supervisor.

Never decides anything about a request or an object.
"""

"""The long-running subresources of pods: log, exec, attach and port-forward.

Never starts a container: it talks to those that the kubelet runs.
"""

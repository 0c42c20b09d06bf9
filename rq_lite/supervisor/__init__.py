"""The parent of a worker's consumers: it starts, watches and replaces them.

Plain Python, never patched; it runs no user code.
"""

"""Where do a model's files come from? Sources, the model cache, repacking.

Fetching and everything that needs numpy happens in a short-lived child process
(:func:`headrace.models.pull.pull`), so that the server stays small and its loop free.
"""

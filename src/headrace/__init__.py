"""Headrace: one server that carries requests to language models and never loses a stream."""

__version__ = "0.1.0"

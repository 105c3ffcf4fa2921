"""Measuring tools: Headrace beside its peers, in one run, on one machine. Each module prints a table."""

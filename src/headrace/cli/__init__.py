"""How does a person use it? The ``headrace`` command."""

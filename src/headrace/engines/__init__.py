"""What computes it? The :class:`Engine` protocol, one module per engine, and the supervisor of
engine processes."""

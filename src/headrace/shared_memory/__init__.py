"""Memory that a client shares with the server, so that tensors need not be sent."""

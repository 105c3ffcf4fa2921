"""The document of the HTTP API: what there is to ask, protocol by protocol."""

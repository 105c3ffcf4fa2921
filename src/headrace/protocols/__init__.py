"""How is it said on the wire? Decoders of bodies into requests, encoders of log events into bytes."""

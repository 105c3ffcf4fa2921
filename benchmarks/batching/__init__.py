"""How the dynamic batcher does: simulated over batch sizes and waits, on a real model, beside its peers."""

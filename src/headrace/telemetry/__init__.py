"""What is happening? Metrics, structured logs, the garbage collector's pauses."""

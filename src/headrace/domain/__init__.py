"""What are we talking about? Plain values: request, event, usage, errors. No I/O; imports nothing of ours."""

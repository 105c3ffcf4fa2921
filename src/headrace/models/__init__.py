"""Where do a model's files come from? Sources, the model cache, repacking."""

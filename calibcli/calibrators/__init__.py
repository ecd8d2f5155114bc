"""The maps from logits to log-probabilities, one family a file."""

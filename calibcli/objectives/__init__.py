"""What a fit minimises, one a file."""

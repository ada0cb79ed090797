"""The one training loop, and runs as folders."""

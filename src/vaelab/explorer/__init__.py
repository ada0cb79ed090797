"""The explorer: one page in which a trained model runs in the reader's browser."""

"""Losses as sums of named terms, in nats per image."""

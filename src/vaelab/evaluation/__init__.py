"""Figures with their error bars and the protocol that made them."""

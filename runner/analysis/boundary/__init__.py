"""Boundaries: where a property of cells changes along a key, how exactly that is known, how it scales."""

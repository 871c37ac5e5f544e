"""Numerical methods that know nothing of networks: Lanczos, eigenvalues, precision, losses."""

"""Hydra plugin: sweeps a grid of cells in packs, through any launcher.

Hydra imports this package at every start of every Hydra app in the environment: nothing heavy here.
"""

"""Infinitely wide networks in training: the mean-field limit, and the lazy one as its richness goes to zero.

A network of width n in the mean-field parameterization (``mup``, ``mean_field``) trains, as n grows, as its
dynamical mean-field theory says: the units of a layer become independent draws of one random process, which
feel each other through averages alone. :mod:`runner.limits.constants` says which cells have such a limit and
with which constants, :mod:`runner.limits.march` solves it forward in time, :mod:`runner.limits.lazy` is the
limit of vanishing richness, which networks in the ``ntk`` parameterization go to.
:mod:`runner.limits.solver` chooses between them and says how far the answer can be trusted.

In tensors, ``sample`` runs over the training samples and then the probes, ``unit`` over sampled units of a
layer, ``step`` over the steps asked for.

References:
    Bordelon & Pehlevan (2022), "Self-consistent dynamical field theory of kernel evolution in wide neural
    networks", arXiv 2205.09653.
"""

from runner.limits.constants import problem_of
from runner.limits.problem import Problem
from runner.limits.solver import Limit, Sampling, solve
from runner.limits.source import limit_of, limits_from

__all__ = ["Limit", "Problem", "Sampling", "limit_of", "limits_from", "problem_of", "solve"]

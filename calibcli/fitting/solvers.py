"""Which solver suits what is to be fitted."""

from __future__ import annotations

from calibcli.calibrators.base import SmoothMap
from calibcli.calibrators.ensemble_temperature import EnsembleTemperatureMap
from calibcli.fitting.adaptive import Solver
from calibcli.fitting.equations import solve_equations
from calibcli.fitting.lbfgs import solve_lbfgs
from calibcli.fitting.mixture import solve_mixture
from calibcli.fitting.newton import solve_newton
from calibcli.fitting.nonnegative import solve_nonnegative
from calibcli.fitting.reweighting import solve_reweighted
from calibcli.objectives.base import Objective
from calibcli.objectives.nll import NegativeLogLikelihood


def choose_solver(family: SmoothMap, objective: Objective, classes: int) -> Solver:
    """The solver that suits a family and an objective at K classes."""
    if family.bounded:
        return solve_nonnegative
    if objective.estimating:
        return solve_equations if family.linear else solve_reweighted
    likelihood = isinstance(objective, NegativeLogLikelihood)
    if likelihood and isinstance(family, EnsembleTemperatureMap):
        return solve_mixture
    # With a metric for it, gradients of the likelihood are all that a solver needs.
    if family.linear and objective.convex and not (likelihood and family.curvature(classes)):
        return solve_newton
    return solve_lbfgs

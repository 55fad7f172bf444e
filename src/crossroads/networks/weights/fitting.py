"""Keeps the earlier name of `crossroads.networks.weights.assign`, for programs that import it."""

from crossroads.networks.weights.assign import assign_weights as fit_weights

__all__ = ["fit_weights"]

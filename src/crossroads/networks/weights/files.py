"""Keeps the earlier name of `crossroads.networks.weights.read`, for programs that import it."""

from crossroads.networks.weights.read import read_weights

__all__ = ["read_weights"]

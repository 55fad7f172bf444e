"""Explains predictions: heat maps of an image, and the training images that it resembles most. Keras is not needed."""

from crossroads.explain.maps import Explainer, Method
from crossroads.explain.nearest import Nearest, Neighbour, nearest
from crossroads.explain.pictures import overlay

__all__ = ["Explainer", "Method", "Nearest", "Neighbour", "nearest", "overlay"]

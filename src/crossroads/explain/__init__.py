"""Explains predictions: heat maps of an image. Keras is not needed."""

from crossroads.explain.maps import Explainer, Method
from crossroads.explain.pictures import overlay

__all__ = ["Explainer", "Method", "overlay"]

"""Logs a run to an experiment tracker: TensorBoard or MLflow.

`tracking` says what is logged and when, `facts` takes it from the recipe and the finished run, and each tracker is one module that
writes it. A tracker never ends or changes a run: if it fails, one warning says so, and the run continues without it.
"""

from crossroads.track.tracking import TRACKERS, require_known, tracked

__all__ = ["TRACKERS", "require_known", "tracked"]

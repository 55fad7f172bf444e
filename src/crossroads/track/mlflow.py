"""Logs a run to MLflow, with a nested run for each candidate of a race.

MLflow's environment variables decide where: ``MLFLOW_TRACKING_URI`` and ``MLFLOW_EXPERIMENT_NAME`` or ``MLFLOW_EXPERIMENT_ID``.
"""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit, urlunsplit

from crossroads.errors import MissingExtraError, TrainingError, missing_extra, option
from crossroads.track.tracker import Outcome, Result, Value
from crossroads.training.checkpoint import write_atomically

URI = "sqlite:///mlflow.db"
"""The database if the user named none: a file in the current folder."""

EXPERIMENT = "crossroads"
"""The experiment if the user named none."""

SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Variables that MLflow reads, unless the user set them. With its defaults, a server that is gone would stop a run for minutes, and
MLflow would report to its makers."""

_STATUS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
_NOISY = ("mlflow", "alembic", "urllib3")
_PARENT, _NAME = "mlflow.parentRunId", "crossroads.candidate"
_PARAMETERS_PER_CALL = 100

P = ParamSpec("P")
T = TypeVar("T")


@contextmanager
def _settings() -> Iterator[None]:
    """Sets `SETTINGS` while MLflow works, and keeps its lines about tables and retries out of the terminal."""
    absent = [name for name in SETTINGS if name not in os.environ]
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    os.environ.update({name: SETTINGS[name] for name in absent})
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        for name in absent:
            os.environ.pop(name, None)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _with_settings(method: Callable[P, T]) -> Callable[P, T]:
    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with _settings():
            return method(*args, **kwargs)

    return call


def _missing() -> MissingExtraError:
    return missing_extra("logging to MLflow", "mlflow-skinny with SQLAlchemy", "mlflow")


try:
    with _settings():
        import mlflow
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.exceptions import MlflowException
except ImportError as error:
    raise _missing() from error


class MLflow:
    """Logs a run to MLflow.

    Args:
        state: A file that holds the identifiers of the runs, so that a resumed run continues them.
        name: Name of the run.

    Raises:
        MissingExtraError: The database needs a package that is not installed.
        TrainingError: The database or the server does not answer.
    """

    @_with_settings
    def __init__(self, state: Path, name: str) -> None:
        self._state, self._name = state, name
        self._ids = _stored(state)
        self._current = ""
        uri = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else URI
        try:
            self._client = mlflow.MlflowClient(tracking_uri=uri)
            self._experiment = _experiment(self._client)
        except ImportError as error:
            raise _missing() from error
        except Exception as error:  # of any kind: each kind of database has its own
            public = _without_password(uri)
            reason = (str(error).splitlines() or [""])[0].replace(uri, public)[:200]
            raise TrainingError(
                f"the database or the server of {option('track')} must answer",
                code="tracker-unavailable",
                field="track",
                received=f"{public} ({reason})",
                hint="check MLFLOW_TRACKING_URI, or leave the option out",
            ) from error

    @_with_settings
    def begin(self, parameters: Mapping[str, Value]) -> None:
        """Begins the run, or continues that of an earlier process."""
        self._current = self._run("", self._name, {})
        self._log_parameters(parameters)

    @_with_settings
    def begin_candidate(self, name: str, parameters: Mapping[str, Value]) -> None:
        """Begins or continues a nested run."""
        title = f"{parameters['strategy']} with {parameters['backbone']}"
        self._current = self._run(name, title, {_PARENT: self._ids[""], _NAME: name})
        self._log_parameters(parameters)

    @_with_settings
    def epoch(self, figures: Mapping[str, float], step: int) -> None:
        """Logs the figures as metrics."""
        self._log_figures(figures, step)

    @_with_settings
    def end_candidate(self, outcome: Outcome) -> None:
        """Ends the nested run."""
        self._client.set_terminated(self._current, _STATUS[outcome])
        self._current = self._ids[""]

    @_with_settings
    def finish(self, result: Result) -> None:
        """Logs the parameters that the user did not set, the figures, the tags and the documents."""
        self._log_parameters(result.parameters)
        self._log_figures(result.figures, 0)
        self._client.log_batch(self._current, tags=[RunTag(f"crossroads.{name}", value) for name, value in result.tags.items()])
        for path in result.files:
            self._client.log_artifact(self._current, str(path))

    @_with_settings
    def close(self, outcome: Outcome) -> None:
        """Ends the run."""
        self._client.set_terminated(self._ids[""], _STATUS[outcome])

    def _run(self, key: str, name: str, tags: Mapping[str, str]) -> str:
        """Returns the identifier of a run that is begun or continued; `key` is the name of a candidate, or "" for the whole run."""
        known = self._ids.get(key)
        if known is not None:
            try:
                self._client.update_run(known, status="RUNNING")
                return known
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # deleted, or in another database
                    raise
        made: str = self._client.create_run(self._experiment, run_name=name, tags=dict(tags)).info.run_id
        self._ids[key] = made
        write_atomically(self._state, json.dumps(self._ids).encode())
        return made

    def _log_parameters(self, parameters: Mapping[str, Value]) -> None:
        """Logs the parameters that the current run lacks, because MLflow refuses to change one."""
        known = self._client.get_run(self._current).data.params
        lacking = [Param(name, str(value)) for name, value in parameters.items() if name not in known]
        for start in range(0, len(lacking), _PARAMETERS_PER_CALL):
            self._client.log_batch(self._current, params=lacking[start : start + _PARAMETERS_PER_CALL])

    def _log_figures(self, figures: Mapping[str, float], step: int) -> None:
        now = int(1000 * time.time())
        self._client.log_batch(self._current, metrics=[Metric(name, value, now, step) for name, value in figures.items()])


def _experiment(client: Any) -> str:
    """Returns the identifier of the experiment. Makes the experiment if there is none with its name."""
    given = os.environ.get("MLFLOW_EXPERIMENT_ID")
    if given:
        return str(client.get_experiment(given).experiment_id)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    found = client.get_experiment_by_name(name)
    return str(client.create_experiment(name) if found is None else found.experiment_id)


def _stored(state: Path) -> dict[str, str]:
    """Returns the identifiers that an earlier process stored; none if the file is absent or damaged."""
    try:
        ids = json.loads(state.read_text())
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in ids.items()} if isinstance(ids, dict) else {}


def _without_password(uri: str) -> str:
    """Returns an address without the user and the password in it."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

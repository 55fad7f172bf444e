"""Loads Keras, and checks that its settings in this process and on this machine suit training."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from crossroads._runtime.process import ONEDNN, process_settings, without_chatter
from crossroads.errors import MissingExtraError, SetupError, missing_extra

TRAINING = ("tensorflow", "jax", "torch")
"""The backends of Keras that can train."""

LOADING = "loading TensorFlow"
"""The stage in which `load_keras` loads Keras with its backend, nearly always TensorFlow."""

BACKEND = "KERAS_BACKEND"
_LIMIT_VARIABLES = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH")


def can_train() -> bool:
    """Returns whether Keras is installed. Without it backbones stay frozen and heads are solved."""
    return "keras" in sys.modules or importlib.util.find_spec("keras") is not None


def training_needed(purpose: str) -> MissingExtraError:
    """Returns the error about something that needs Keras, such as ``finetuning``."""
    return missing_extra(purpose, "Keras and TensorFlow", "train")


def load_keras() -> None:
    """Loads Keras and its backend quietly.

    Raises:
        MissingExtraError: They are not installed.
        SetupError: Keras cannot be imported, or `require_usable_keras` raises the error.
    """
    if not can_train():
        raise training_needed("working with a Keras model")
    require_usable_keras()
    if "keras" in sys.modules:
        return
    with process_settings(), without_chatter():
        try:
            import keras
        except ImportError as error:
            raise SetupError(
                "Keras and its backend must be installed",
                code="keras-not-installed",
                received=str(error),
                hint="install crossroads again, with its dependencies",
            ) from error
        keras.ops.ones(1)  # TensorFlow prints more notices at the first operation


def require_usable_keras() -> None:
    """Refuses a backend or settings of Keras that do not suit training. The check loads neither Keras nor the backend.

    Raises:
        SetupError: The backend cannot train or is not installed; Keras is set to another dtype than float32, to channels first, or
            to limit epochs or steps; TensorFlow ran before this process was forked, or does not execute eagerly.
    """
    if not can_train():
        return  # there is nothing to refuse
    _require_settings(_settings())
    _require_working_tensorflow()


def keras_backend() -> str:
    """Returns the name of the Keras backend that is loaded or would be loaded. Does not load it."""
    return _settings().backend


def library_versions() -> dict[str, str]:
    """Returns the versions of the libraries on which the exact weights depend: those that decode images, and those that compute."""
    backend = keras_backend()
    distributions = ("pillow", "numpy", "keras", *(("tensorflow", "tensorflow-cpu") if backend == "tensorflow" else (backend,)))
    versions = {"backend": backend}
    for name in distributions:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    if backend == "tensorflow":
        versions["onednn"] = os.environ.get(ONEDNN, "default of TensorFlow")
    return versions


@dataclass(frozen=True, slots=True)
class _Settings:
    """The settings of Keras, and hints on how to change the backend and the types."""

    backend: str
    floatx: object
    policy: object
    image_data_format: object
    limits: dict[str, object]
    other_backend: str
    other_types: str


def _settings() -> _Settings:
    if "keras" not in sys.modules:
        return _settings_to_load()
    import keras  # waits for a thread that is importing it

    return _settings_of(keras)


def _settings_to_load() -> _Settings:
    """Returns the settings that Keras will load from its file and from the environment, which takes precedence."""
    path = _settings_file()
    facts = _file_contents(path)
    named = os.environ.get(BACKEND)
    return _Settings(
        backend=named or str(facts.get("backend", "tensorflow")),
        floatx=facts.get("floatx", "float32"),
        policy=facts.get("floatx", "float32"),
        image_data_format=facts.get("image_data_format", "channels_last"),
        limits={name: os.environ[name] for name in _LIMIT_VARIABLES if name in os.environ},
        other_backend=f"unset {BACKEND}" if named else f'write "backend": "tensorflow" in {path}',
        other_types=f'write "floatx": "float32" and "image_data_format": "channels_last" in {path}',
    )


def _settings_of(keras: Any) -> _Settings:
    """Returns the settings of the loaded Keras."""
    limits = {"max_epochs": keras.config.max_epochs(), "max_steps_per_epoch": keras.config.max_steps_per_epoch()}
    return _Settings(
        backend=str(keras.backend.backend()),
        floatx=keras.config.floatx(),
        policy=keras.config.dtype_policy().name,
        image_data_format=keras.config.image_data_format(),
        limits={name: limit for name, limit in limits.items() if limit is not None},
        other_backend=f"start this program again with {BACKEND}=tensorflow",
        other_types="call keras.config.set_floatx('float32'), keras.config.set_dtype_policy('float32') and "
        "keras.config.set_image_data_format('channels_last')",
    )


def _require_settings(settings: _Settings) -> None:
    if settings.backend not in TRAINING:
        raise SetupError(
            "Keras must use a backend that can train: tensorflow or jax",
            code="backend-cannot-train",
            received=repr(settings.backend),
            hint=settings.other_backend,
        )
    if settings.backend not in sys.modules and importlib.util.find_spec(settings.backend) is None:
        raise SetupError(
            "the backend that Keras is set to must be installed",
            code="backend-not-installed",
            received=repr(settings.backend),
            hint=f"install it, or {settings.other_backend}",
        )
    if (settings.floatx, settings.policy, settings.image_data_format) != ("float32", "float32", "channels_last"):
        types = settings.policy if settings.floatx == settings.policy else f"{settings.floatx}, {settings.policy}"
        raise SetupError(
            "Keras must use float32 with channels last",
            code="keras-types",
            received=f"{types} and {settings.image_data_format}",
            hint=settings.other_types,
        )
    for name, limit in settings.limits.items():
        hint = f"unset {name}" if name in _LIMIT_VARIABLES else f"call keras.config.set_{name}(None)"
        raise SetupError(
            "Keras must not limit the epochs or steps of training", code="keras-limit", received=f"{name} {limit}", hint=hint
        )


def _settings_file() -> Path:
    """Returns the path of Keras' settings file. Follows the same rules as Keras."""
    home = os.path.expanduser("~")  # noqa: PTH111 - Path raises if the user has no home
    usual = Path(home if os.access(home, os.W_OK) else "/tmp") / ".keras"
    return Path(os.path.expanduser(os.environ.get("KERAS_HOME", usual))) / "keras.json"  # noqa: PTH111


def _file_contents(path: Path) -> dict[str, Any]:
    """Returns the contents of the settings file. Like Keras, treats a file that is missing or not JSON as empty."""
    if not path.exists():
        return {}
    try:
        facts = json.loads(path.read_text())
    except OSError as error:
        _refuse_file(path, str(error.strerror))
    except ValueError:
        return {}
    if not isinstance(facts, dict):
        _refuse_file(path, type(facts).__name__)
    if not isinstance(facts.get("epsilon", 1e-7), float):
        _refuse_file(path, f"epsilon {facts['epsilon']!r}")
    return facts


def _refuse_file(path: Path, received: str) -> NoReturn:
    raise SetupError(
        f"{path} must hold settings that Keras can read",
        code="keras-settings-unreadable",
        received=received,
        hint="correct or remove it",
    )


_forked_after = False
"""Whether this process was forked after TensorFlow had started its threads."""


def _note_fork() -> None:
    global _forked_after
    _forked_after = _forked_after or _tensorflow_runs()


def _tensorflow_runs() -> bool:
    """Returns whether TensorFlow has computed anything in this process, and so has threads."""
    context = getattr(sys.modules.get("tensorflow.python.eager.context"), "_context", None)
    return bool(getattr(context, "_initialized", False))


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_note_fork)


def _require_working_tensorflow() -> None:
    if _forked_after:
        raise SetupError(
            "TensorFlow does not work in a process that was forked after TensorFlow ran",
            code="forked-process",
            hint="start processes with multiprocessing.get_context('spawn')",
        )
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and not tensorflow.executing_eagerly():
        raise SetupError(
            "TensorFlow must execute eagerly",
            code="tensorflow-not-eager",
            received="a default graph, or disabled eager execution",
            hint="call this outside of tf.Graph and tf.function, without disable_eager_execution",
        )

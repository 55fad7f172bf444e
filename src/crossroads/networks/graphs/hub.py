"""Downloads networks from the Hugging Face hub by name: ``hf:OWNER/NAME[@REVISION][:PATH]``. No executable file is downloaded."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from crossroads.errors import BackboneError, missing_extra
from crossroads.networks._named import HUB
from crossroads.networks.graphs.files import external_data, require_small
from crossroads.networks.graphs.preprocessing import COMMIT, CONFIG
from crossroads.progress import Note

Progress = Callable[[str, int, int], None]
"""Called with a stage, the bytes received and the bytes of the whole file."""

MAIN_GRAPH = "onnx/model.onnx"
"""The graph that is used if a repository has several."""

TIMEOUT = 10.0
"""Seconds to wait for an answer. The package waits as long for each file."""

_FORM = re.compile(r"hf:(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^@:\s]+))?(?::(?P<file>[^:]+))?")
_GRAPHS = (".onnx", ".tflite")
_CARDS = ("README.md", "LICENSE", "LICENSE.md", "LICENSE.txt")
_DATA = re.compile(r".*(\.onnx_data(_\d+)?|\.onnx\.data|\.data)")
"""Names of files with the weights of an ONNX graph. They hold numbers only."""


@dataclass(frozen=True, slots=True)
class HubName:
    """The name of a network on the hub.

    Attributes:
        repository: Owner and name of the repository.
        revision: A branch, a tag or a commit; None for the default branch.
        file: The graph in the repository; None for the only one, or `MAIN_GRAPH`.
    """

    repository: str
    revision: str | None = None
    file: str | None = None

    @property
    def pinned(self) -> bool:
        """Whether it always means the same file."""
        return self.file is not None and COMMIT.fullmatch(self.revision or "") is not None

    def __str__(self) -> str:
        revision = "" if self.revision is None else f"@{self.revision}"
        return f"{HUB}{self.repository}{revision}" + ("" if self.file is None else f":{self.file}")


def parse(named: str) -> HubName:
    """Splits a name. Raises `BackboneError` if it has another form, or names a file that is not a graph."""
    found = _FORM.fullmatch(named)
    name = HubName(**found.groupdict()) if found else None
    if name is None or (name.file is not None and not _is_graph(name.file)):
        raise BackboneError(
            "a network on the hub is named hf:OWNER/NAME, with @REVISION and :PATH if needed",
            code="hub-name",
            field="backbone",
            received=repr(named),
            hint="PATH is an .onnx or .tflite file of the repository",
        )
    return name


def pin(named: str, note: Callable[[str], object] | None = None) -> str:
    """Returns a name with the commit that its revision means now, and with the graph that it means.

    Args:
        named: The name.
        note: Called with a note if the hub does not answer and its cache says which commit the revision was at its last use.

    Raises:
        MissingExtraError: The package ``huggingface_hub`` is not installed.
        BackboneError: There is no such repository, revision or graph, access is refused, or the hub cannot be reached.
    """
    name = parse(named)
    if name.pinned:
        return named
    hub = _hub()
    with _explained(hub, name):
        try:
            commit, files = _now(hub, name)
        except Exception as error:
            last = _last(hub, name) if _is_unreachable(hub, error) else None
            if last is None:
                raise
            commit, files = last
            if note is not None and name.revision != commit:
                text = f"the hub was not asked for {named}; the newest revision in its cache is used, {commit[:12]}"
                note(Note(text, "hub-cached-revision", backbone=named, commit=commit))
    return str(replace(name, revision=commit, file=_chosen(files, name)))


def fetch(named: str, progress: Progress | None = None) -> Path:
    """Returns the file of a network, after it was downloaded into the hub's own cache, with the files that describe it.

    Only the graph with its weights, ``preprocessor_config.json``, the model card and the licence are downloaded. If they are in the
    cache and the name is pinned, no connection is made.

    Raises:
        MissingExtraError: The package ``huggingface_hub`` is not installed.
        BackboneError: There is no such repository, revision or graph, access is refused, or the hub cannot be reached.
    """
    name = parse(pin(named))
    hub = _hub()
    with _explained(hub, name):
        _fetch_descriptions(hub, name)
        graph = _downloaded(hub, name, str(name.file), progress)
        data = _fetch_data(hub, name, graph, progress) if graph.suffix == ".onnx" else []
        if data:
            for file in (graph, *data):
                _replace_link(file)
    return graph


def same_network(requested: str, before: str) -> bool:
    """Returns whether a name may resume a run with the pinned name `before`. Parts that the name omits may have any value."""
    wanted, used = parse(requested), parse(before)
    if wanted.repository != used.repository or wanted.file not in (None, used.file):
        return False
    if wanted.revision in (None, used.revision):
        return True
    return parse(pin(str(replace(wanted, file=used.file)))).revision == used.revision


def _hub() -> Any:
    try:
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ImportError as error:
        raise missing_extra("a network on the hub", "huggingface_hub", "hub") from error
    return huggingface_hub


def _is_graph(file: str) -> bool:
    path = PurePosixPath(file)
    return path.suffix in _GRAPHS and not path.is_absolute() and ".." not in path.parts and "\\" not in file


def _now(hub: Any, name: HubName) -> tuple[str, list[str]]:
    """Asks the hub for the commit of a revision and its files. The cache keeps the commit for `_last`."""
    api, repository = hub.HfApi(), name.repository
    facts = api.model_info(repository, revision=name.revision, timeout=TIMEOUT)
    commit = str(
        api.resolve_revision(repository, revision=name.revision).resolved
    )  # has no time limit, but the hub has just answered
    if commit != facts.sha:
        facts = api.model_info(repository, revision=commit, timeout=TIMEOUT)
    return commit, [file.rfilename for file in facts.siblings or ()]


def _last(hub: Any, name: HubName) -> tuple[str, list[str]] | None:
    """Returns the commit that a revision was at its last use, and those of its files that are in the cache; None if none are."""
    repository, errors = name.repository, hub.errors
    try:
        commit = str(hub.HfApi().resolve_revision(repository, revision=name.revision, local_files_only=True).resolved)
        cached = Path(hub.snapshot_download(repository, revision=commit, local_files_only=True, allow_patterns=[]))
    except (errors.RevisionResolutionError, errors.LocalEntryNotFoundError):
        return None
    return commit, [file.relative_to(cached).as_posix() for file in cached.rglob("*") if file.is_file()]


def _chosen(files: Sequence[str], name: HubName) -> str:
    """Returns the graph that a name means among the files of a repository."""
    graphs = sorted(file for file in files if file.endswith(".onnx"))
    if name.file is not None:
        if name.file in files:
            return name.file
        rule, code = f"{name.repository} must have the file", "hub-no-file"
    elif len(graphs) == 1 or MAIN_GRAPH in graphs:
        return MAIN_GRAPH if MAIN_GRAPH in graphs else graphs[0]
    elif graphs:
        rule, code = f"one of the graphs of {name.repository} must be named", "hub-several-graphs"
    else:
        rule, code = f"{name.repository} must have an .onnx file", "hub-no-graph"
    shown = graphs or sorted(files)
    listed = ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "")
    hint = f"add :PATH with one of {listed}" if graphs else f"its files are {listed}"
    raise BackboneError(rule, code=code, field="backbone", received=repr(str(name)), hint=hint)


def _fetch_descriptions(hub: Any, name: HubName) -> None:
    """Downloads what describes a graph, as far as the repository has it. If the graph is cached, this needs no connection."""
    known = _cached(hub, name, str(name.file)) is not None
    configs = dict.fromkeys(str(folder / CONFIG) for folder in (PurePosixPath(str(name.file)).parent, PurePosixPath()))
    for file in (*_CARDS, *configs):
        if _cached(hub, name, file) is not None:
            continue
        try:
            _downloaded(hub, name, file, None)
        except hub.errors.RemoteEntryNotFoundError:
            continue
        except Exception as error:
            if known and _is_unreachable(hub, error):
                return
            raise


def _fetch_data(hub: Any, name: HubName, graph: Path, progress: Progress | None) -> list[Path]:
    """Downloads the files with the weights of a graph. A file that is missing is reported when the graph is read."""
    folder, data = PurePosixPath(str(name.file)).parent, []
    for location in external_data(graph):
        if _DATA.fullmatch(location) and ".." not in PurePosixPath(location).parts and not location.startswith("/"):
            try:
                data.append(_downloaded(hub, name, str(folder / location), progress))
            except hub.errors.RemoteEntryNotFoundError:
                continue
    return data


def _cached(hub: Any, name: HubName, file: str) -> Any:
    """Returns the path of a file in the cache, another value if the repository is known not to have it, or None."""
    return hub.try_to_load_from_cache(name.repository, file, revision=name.revision)


def _downloaded(hub: Any, name: HubName, file: str, progress: Progress | None) -> Path:
    """Returns the path of a file in the cache. Downloads the file if necessary."""
    get = {"repo_id": name.repository, "filename": file, "revision": name.revision}
    facts = hub.hf_hub_download(**get, dry_run=True)
    require_small(file, facts.file_size or 0)
    bar = _bar(None if facts.is_cached else progress, f"downloading {PurePosixPath(file).name}")
    return Path(hub.hf_hub_download(**get, tqdm_class=bar))


def _replace_link(file: Path) -> None:
    """Replaces a link into the cache by the file itself. OpenVINO reads no weights through links that leave their folder.

    The cache has such files too where the system has no links. A hard link takes no space.
    """
    if not file.is_symlink():
        return
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        os.link(file.resolve(), partial)
    except OSError:
        shutil.copyfile(file, partial)
    partial.replace(file)


def _bar(progress: Progress | None, stage: str) -> type:
    """Returns a class with the interface of a progress bar, as the hub's package uses it, that reports to `progress`."""

    class Bar:
        def __init__(self, *, total: int | None = None, initial: int = 0, **_: object) -> None:
            self.total, self.n = total, 0
            self.update(initial)

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None: ...

        def update(self, n: float | None = 1) -> None:
            self.n += int(n or 0)
            if progress is not None and n:
                progress(stage, self.n, self.total or 0)

        def update_transfer(self, n: float | None = 1) -> None:
            """Does nothing: `update` counts the same bytes when they are on the disk."""

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *_, **__: None

    return Bar


def _is_unreachable(hub: Any, error: Exception) -> bool:
    """Returns whether an error means that the hub gave no answer: offline mode, no network, or a server that is down."""
    errors = hub.errors
    if isinstance(error, errors.HfHubHTTPError):
        return bool(error.response.status_code >= 500)
    missing = (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, errors.RevisionResolutionError)
    return isinstance(error, (*missing, errors.HTTPError))


@contextmanager
def _explained(hub: Any, name: HubName) -> Iterator[None]:
    """Turns an error of the hub's package into one clear line. Its own messages about attempts are not shown."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    except (OSError, ValueError, hub.errors.HTTPError, hub.errors.EntryNotFoundError, hub.errors.RevisionResolutionError) as error:
        rule, code, received, hint = _explanation(hub, name, error)
        raise BackboneError(rule, code=code, field="backbone", received=received, hint=hint) from error
    finally:
        logger.setLevel(level)


def _explanation(hub: Any, name: HubName, error: Exception) -> tuple[str, str, str, str]:
    """Returns rule, code, received value and hint."""
    errors, repository = hub.errors, name.repository
    if isinstance(error, errors.GatedRepoError):
        address = f"{hub.constants.ENDPOINT}/{repository}"
        return f"the owner of {repository} must grant access", "hub-gated", str(name), f"ask at {address}, then run `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        hint = "check the name, or run `hf auth login` if it is private"
        return "the hub has no such repository", "hub-no-repository", repository, hint
    if isinstance(error, errors.RevisionNotFoundError):
        hint = "leave @REVISION out for the newest one"
        return f"{repository} has no such revision", "hub-no-revision", repr(name.revision), hint
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return f"{repository} must have the file", "hub-no-file", repr(str(name)), "leave :PATH out to see what it has"
    if _is_unreachable(hub, error):
        return _no_answer(hub, name, error)
    if isinstance(error, errors.HfHubHTTPError):
        return f"the hub refused to send {repository}", "hub-refused", _reason(error), "try again later"
    if isinstance(error, OSError) and error.errno is not None:
        reason = f"{hub.constants.HF_HUB_CACHE} ({error.strerror})"
        return "the hub's cache must be writable", "hub-cache", reason, "free some space, or set HF_HOME to another folder"
    return f"{repository} could not be downloaded", "hub-download", _reason(error), "try again"


def _no_answer(hub: Any, name: HubName, error: Exception) -> tuple[str, str, str, str]:
    rule = f"{name.repository} is not in the hub's cache, or not in this revision"
    if hub.constants.is_offline_mode():
        return rule, "hub-offline", "HF_HUB_OFFLINE", "unset it, and use the network once with a connection"
    hint = "connect to the network, or set HF_ENDPOINT to a mirror"
    return f"{rule}, and {hub.constants.ENDPOINT} does not answer", "hub-unreachable", _reason(error), hint


def _reason(error: BaseException) -> str:
    """Returns the first cause of an error as short text: the status of an answer, or what the network said."""
    while error.__cause__ is not None:
        error = error.__cause__
    answer = getattr(error, "response", None)
    if answer is not None:
        return f"{answer.status_code} {answer.reason_phrase}"
    return " ".join(str(error).split())[:200] or type(error).__name__

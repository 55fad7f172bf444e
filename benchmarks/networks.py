"""Which networks become an artifact: each record of the catalog, and networks of a user's own. Slow, taken up where it stopped.

``python -m benchmarks artifacts own-networks`` measures, ``python -m benchmarks.networks`` writes the tables into the docs.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import crossroads
from benchmarks._measure import ROOT, Row, Settings, fresh
from benchmarks.tasks import shapes
from crossroads import artifact
from crossroads._runtime.keras_setup import load_keras
from crossroads.data import loading
from crossroads.data.loading import load_all
from crossroads.features import extract
from crossroads.networks.catalog import CATALOG, backbone

FIGURES = ROOT / "benchmarks" / "figures" / "artifacts.jsonl"
"""One line a network, of the versions that it names."""

PAGE = ROOT / "docs" / "benchmarks.md"
TABLES = {
    "artifacts": ("backbone", "image size", "`fit`, processor s", "of it the rehearsal", "largest difference", "peak memory, MB"),
    "own-networks": ("a network with", "becomes an artifact", "largest difference, or why not"),
}


def artifacts(settings: Settings) -> Iterator[Row]:
    records = sorted(CATALOG, key=lambda record: record.parameters)
    failed = []
    for record in records[:2] if settings.quick else records:
        try:
            found = _measured("artifacts", record.name, settings)
        except RuntimeError as error:  # the others are measured anyway
            failed.append(f"{record.name}: {error}")
            print(failed[-1], file=sys.stderr, flush=True)
        else:
            yield Row(f"artifacts, {record.name} at {found['size']} px, fit", "processor s", (found["seconds"],))
    if failed:
        raise RuntimeError("\n".join(failed))


def own_networks(settings: Settings) -> Iterator[Row]:
    load_keras()
    from benchmarks.own_networks import NETWORKS

    names = list(NETWORKS)
    done = [_measured("own-networks", name, settings) for name in (names[:2] if settings.quick else names)]
    yield Row("own-networks, become an artifact", "", (float(sum(not found["refused"] for found in done)),))
    yield Row("own-networks, refused before the first image", "", (float(sum(bool(found["refused"]) for found in done)),))


def _measured(table: str, name: str, settings: Settings) -> dict[str, Any]:
    """The figures of a network: kept ones, or those of a fit that is made now in a process of its own, and kept."""
    asked = {"table": table, "name": name, "versions": _versions()}
    for line in _kept():
        if {key: line[key] for key in asked} == asked:
            return line
    print(f"{table}: {name}", file=sys.stderr, flush=True)
    made = fresh("benchmarks.networks:one", table, name, CROSSROADS_CACHE=str(settings.scratch / "cache" / name))
    found = asked | made.value | {"peak_memory_mb": round(made.peak_mb)}
    if not settings.quick:
        with FIGURES.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
    return found


def one(table: str, name: str) -> dict[str, Any]:
    """`fit` to a loaded artifact that predicts, on thirty images with random weights; or why the network was refused."""
    load_keras()
    from benchmarks.own_networks import SIZE, network

    own = table == "own-networks"
    size = SIZE if own else backbone(name).limits[0]
    pictures = load_all(shapes(0, each=6), size)
    data = crossroads.read((pictures.pixels, pictures.dataset.labels))
    asked = {"strategy": "from-scratch", "epochs": 1} if own else {"strategy": "feature-extraction", "weights": "none"}
    spent, decoded = _clocked(), _counted()
    with tempfile.TemporaryDirectory(prefix="crossroads-bench-") as folder:
        started = time.process_time()
        try:
            run = crossroads.fit(
                data, out=Path(folder) / "run", backbone=network(name) if own else name, image_size=size, seed=1, **asked
            )
        except crossroads.CrossroadsError as error:
            if decoded:
                raise
            return {"size": size, "refused": str(error)}
        seconds = round(time.process_time() - started, 1)
        loaded = crossroads.load(run.artifact)
        if len(loaded.predict(list(pictures.pixels[:4]))) != 4:
            raise RuntimeError(f"{name} predicts other than four images")
        difference = loaded.manifest.facts["parity"]["max_difference"]
    return {"size": size, "refused": "", "seconds": seconds, "rehearsal": round(sum(spent), 2), "difference": difference}


def _clocked() -> list[float]:
    """Processor seconds of each rehearsal from now on."""
    spent: list[float] = []
    rehearse = artifact.rehearse

    def clocked(*given: Any) -> None:
        started = time.process_time()
        try:
            rehearse(*given)
        finally:
            spent.append(time.process_time() - started)

    artifact.rehearse = clocked
    return spent


def _counted() -> list[int]:
    """An entry for each image that is decoded from now on."""
    decoded: list[int] = []
    for module in (loading, extract):
        load = module.load

        def counted(*given: Any, load: Any = load, **named: Any) -> Any:
            decoded.append(1)
            return load(*given, **named)

        module.load = counted
    return decoded


def _versions() -> str:
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("keras", "openvino"))


def _kept() -> list[dict[str, Any]]:
    return [json.loads(line) for line in FIGURES.read_text(encoding="utf-8").splitlines()] if FIGURES.exists() else []


def _cells(line: dict[str, Any]) -> tuple[str, ...]:
    if line["table"] == "own-networks":
        why = line["refused"].partition("received ")[2].partition("; ")[0]
        return line["name"], "no" if line["refused"] else "yes", why or f"{line['difference']:.0e}"
    if line["refused"]:
        return line["name"], f"{line['size']} px", "-", "-", line["refused"], "-"
    figures = (f"{line['seconds']:.1f}", f"{line['rehearsal']:.1f}", f"{line['difference']:.0e}", f"{line['peak_memory_mb']:,}")
    return line["name"], f"{line['size']} px", *figures


def update(page: str) -> str:
    """The page with the kept figures of these versions in its tables."""
    for table, head in TABLES.items():
        known = {line["name"]: line for line in _kept() if (line["table"], line["versions"]) == (table, _versions())}
        lines = [known[record.name] for record in CATALOG if record.name in known] if table == "artifacts" else known.values()
        rows = [head, tuple("---" for _ in head), *map(_cells, lines)]
        before, begin, rest = page.partition(f"<!-- {table}:begin -->")
        _, end, after = rest.partition(f"<!-- {table}:end -->")
        text = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
        page = f"{before}{begin}\n{text}\n\n{_versions()}\n{end}{after}"
    return page


if __name__ == "__main__":
    PAGE.write_text(update(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

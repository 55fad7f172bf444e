"""Arguments, the list of benchmarks, and the table."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import (
    decoding,
    explain,
    few,
    finetuning,
    frozen,
    heads,
    jobs,
    manifest,
    networks,
    notes,
    peers,
    predictions,
    processes,
    reads,
    regret,
    serving,
    strategies,
    threads,
    throughput,
)
from benchmarks._measure import ROOT, SHARED, Row, Settings

PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
HEADER = "| name | ours | theirs | ratio, ours / theirs | runs |\n| --- | --- | --- | --- | --- |"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: What it is asked for by.
        measure: Yields its rows.
        shared: Whether it needs the shared data.
        slow: Whether it runs only when it is named.
        peers: What else is measured where it is installed, of `peers.PEERS`.
    """

    name: str
    measure: Callable[[Settings], Iterator[Row]]
    shared: bool = False
    slow: bool = False
    peers: tuple[str, ...] = ()


BENCHMARKS = (
    Benchmark("fit-throughput", throughput.fit_throughput),
    Benchmark("decode-jpeg", decoding.decode_jpeg),
    Benchmark("manifest-memory", manifest.manifest_memory),
    Benchmark("startup", processes.startup),
    Benchmark("first-predict", processes.first_predict),
    Benchmark("predict-throughput", throughput.predict_throughput),
    Benchmark("predict", predictions.predict, slow=True),
    Benchmark("engine", frozen.engine, peers=("onnxruntime", "torch")),
    Benchmark("second-fit", frozen.second_fit),
    Benchmark("finetune", finetuning.finetune),
    Benchmark("artifacts", networks.artifacts, slow=True),
    Benchmark("own-networks", networks.own_networks, slow=True),
    Benchmark("onednn", throughput.onednn, slow=True),
    Benchmark("threads", threads.threads, slow=True),
    Benchmark("growth", frozen.growth, slow=True),
    Benchmark("reads", reads.reads, slow=True),
    Benchmark("head", heads.head, shared=True, slow=True),
    Benchmark("explain", explain.explain, shared=True, slow=True),
    Benchmark("notes-program", notes.notes_program, shared=True, slow=True),
    Benchmark("xla", throughput.xla, slow=True),
    Benchmark("gtsrb", jobs.gtsrb, shared=True, slow=True),
    Benchmark("small-sets", jobs.small_sets, shared=True, slow=True),
    Benchmark("strategies", strategies.strategies, shared=True, slow=True),
    Benchmark("serving", serving.serving, shared=True, slow=True),
    Benchmark("serving-start", serving.start, shared=True, slow=True),
    Benchmark("serving-overload", serving.overload, shared=True, slow=True),
    Benchmark("serving-endurance", serving.endurance, slow=True),
    Benchmark("regret", regret.regret, shared=True, slow=True),
    Benchmark("few", few.few, shared=True, slow=True),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table, and returns 1 where a benchmark failed."""
    asked = _arguments(arguments)
    chosen = [b for b in BENCHMARKS if (b.name in asked.names if asked.names else not b.slow)]
    _warn_where_busy()
    rows: list[Row] = []
    remarks: list[str] = []
    failed = False
    for benchmark in chosen:
        if benchmark.shared and not SHARED.is_dir():
            remarks.append(f"{benchmark.name}: skipped, needs the shared data in ../shared/data")
            continue
        absent = [peers.PEERS[peer] for peer in benchmark.peers if not peers.installed(peer)]
        remarks += [f"{benchmark.name}: no row beside {peer}, which is not installed" for peer in absent]
        print(f"measuring {benchmark.name}", file=sys.stderr, flush=True)
        try:
            with tempfile.TemporaryDirectory(prefix="crossroads-bench-") as scratch:
                for row in benchmark.measure(Settings(asked.runs, asked.quick, Path(scratch), asked.starts, asked.progress)):
                    print("  " + " | ".join(row.cells()), file=sys.stderr, flush=True)
                    rows.append(row)
        except RuntimeError as error:
            print(error, file=sys.stderr)
            remarks.append(f"{benchmark.name}: failed")
            failed = True
    if asked.quick:
        remarks.append("quick settings: shows that the benchmarks run, and measures nothing")
    print("\n\n".join([table([row.cells() for row in rows]), machine(), *remarks]))
    if asked.json:
        report = {"machine": machine(), "quick": asked.quick, "rows": [row.to_json() for row in rows], "remarks": remarks}
        asked.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if asked.update:
        PAGE.write_text(updated(PAGE.read_text(encoding="utf-8"), rows, machine()), encoding="utf-8")
    return int(failed)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure Crossroads beside the alternatives.")
    names = [benchmark.name for benchmark in BENCHMARKS]
    slow = ", ".join(benchmark.name for benchmark in BENCHMARKS if benchmark.slow)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; all but {slow} by default")
    parser.add_argument("--runs", type=int, default=5, help="samples of each side, or seeds (default 5)")
    parser.add_argument("--starts", type=int, default=100, metavar="N", help="process starts of threads (default 100)")
    parser.add_argument("--progress", type=Path, metavar="FILE", help="note each start of threads in FILE, and go on from there")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that the benchmarks run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to FILE")
    parser.add_argument("--update", action="store_true", help="write the table into docs/benchmarks.md")
    asked = parser.parse_args(arguments)
    unknown = sorted(set(asked.names) - set(names))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; use one of {', '.join(names)}")
    for option, value in (("--runs", asked.runs), ("--starts", asked.starts)):
        if value < 1:
            parser.error(f"{option} must be at least 1; received {value}")
    if asked.quick and asked.update:
        parser.error("--quick measures nothing that could go into docs/benchmarks.md")
    return asked


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of rows of cells."""
    return "\n".join([HEADER, *(f"| {' | '.join(cells)} |" for cells in rows)])


def machine() -> str:
    """What the figures hold for, in one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = [
        f"{name} {_version(name)}"
        for name in ("crossroads", "keras", "tensorflow-cpu", "tensorflow", "openvino", "numpy", "pillow")
    ]
    known = ", ".join(version for version in versions if not version.endswith(" "))
    return f"{_cpu()}, {cores} cores, {platform.system()}, Python {platform.python_version()}, {known}"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def updated(page: str, rows: Sequence[Row], on: str) -> str:
    """The page with the rows in its table: a row of the same name is replaced, and all where the machine or a version differs."""
    before, begin, rest = page.partition(BEGIN)
    old, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"docs/benchmarks.md must hold the markers {BEGIN} and {END}")
    cells = {row.name: row.cells() for row in rows}
    kept = {line.strip("| ").split(" | ")[0]: tuple(line.strip("| ").split(" | ")) for line in old.splitlines() if line[:2] == "| "}
    kept = {name: line for name, line in kept.items() if name not in ("name", "---")} if f"\n{on}\n" in old else {}
    return f"{before}{BEGIN}\n{table(list((kept | cells).values()))}\n\n{on}\n{END}{after}"


def _warn_where_busy() -> None:
    if not hasattr(os, "getloadavg"):
        return
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > 0.3 * cores:
        print(f"warning: the machine is busy (load {load:.1f} on {cores} cores); figures will scatter", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

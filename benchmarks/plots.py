"""The pictures and the table of docs/explanation/four-cases.md, from the figures that are kept: ``python -m benchmarks.plots``."""

from __future__ import annotations

import json
from typing import Any

from benchmarks._measure import ROOT
from benchmarks.regret import ADVICE, expectations, fitted_laws, outcomes

FOLDER = ROOT / "docs" / "explanation"
PROFILES = ("ants/bees", "CIFAR-10, 900 per class", "GTSRB, 4,300 images", "digits, 90 per class")


def advices() -> list[dict[str, Any]]:
    """Every kept advice, with what was asked."""
    return [json.loads(line) for line in ADVICE.read_text(encoding="utf-8").splitlines()]


def profiles() -> None:
    """Accuracy of a probe at each depth of MobileNet, pretrained and random."""
    from matplotlib import pyplot as plt

    known = {row["asked"]["task"]: row["advice"] for row in advices() if row["asked"]["backbone"] == "MobileNet"}
    chosen = [name for name in PROFILES if name in known]
    figure, axes = plt.subplots(1, len(chosen), figsize=(3 * len(chosen), 2.6), sharey=True, layout="constrained")
    for axis, name in zip(axes, chosen, strict=True):
        rows = known[name]["evidence"]["profiles"][0]["depths"]
        depths = [row["depth"] for row in rows]
        for key, label, style in (("accuracy", "pretrained", "o-"), ("random", "random weights", "s--")):
            values = [row[key]["value"] for row in rows]
            axis.plot(depths, values, style, label=label, markersize=3)
            axis.fill_between(depths, [row[key]["low"] for row in rows], [row[key]["high"] for row in rows], alpha=0.2)
        similar = known[name]["case"]["similarity"]["value"]
        axis.set(title=f"{name}\nsimilarity {similar:.2f}", xlabel="depth", ylim=(0, 1.02))
        axis.title.set_fontsize(9)
    axes[0].set_ylabel("accuracy of a probe")
    axes[-1].legend(fontsize=7, loc="lower right")
    figure.savefig(FOLDER / "profiles.svg", metadata={"Date": None})


def plane() -> None:
    """The four cases as quarters of a plane, with the tasks of the benchmark in it."""
    from matplotlib import pyplot as plt

    from crossroads.advice.cases import LARGE, SIMILAR

    figure, axis = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
    for row in advices():
        if row["asked"]["backbone"] != "MobileNet":
            continue
        size, case = row["advice"]["evidence"]["size"], row["advice"]["case"]
        x, y = size["effective"] / size["classes"], case["similarity"]
        below, above = y["value"] - y["low"], y["high"] - y["value"]
        axis.errorbar(x, y["value"], [[below], [above]], fmt="o", color="C0", elinewidth=0.6, markersize=4)
        axis.annotate(row["asked"]["task"], (x, y["value"]), xytext=(4, 4), textcoords="offset points", fontsize=7)
    axis.axvline(LARGE, color="grey", linewidth=0.8)
    axis.axhline(SIMILAR, color="grey", linewidth=0.8)
    corners = {
        (0.01, 0.97): "1: extract",
        (0.01, 0.03): "2: early features",
        (0.8, 0.97): "3: finetune",
        (0.8, 0.03): "4: from scratch",
    }
    for (x, y), words in corners.items():
        axis.text(x, y, words, transform=axis.transAxes, fontsize=9, color="grey", va="top" if y > 0.5 else "bottom")
    axis.set(xscale="log", xlim=(3, 10_000), ylim=(-0.02, 1.02), xlabel="effective images of a class", ylabel="similarity")
    figure.savefig(FOLDER / "plane.svg", metadata={"Date": None})


def table(backbone: str = "MobileNet") -> str:
    """Returns a Markdown table of each task with a backbone: the advice, fitted without the task, and the best strategy."""
    found = list(outcomes(measure=False))
    rows = ["| task | case | similarity | advised | expected | reached | best of all |", "|---|---|---|---|---|---|---|"]
    for one in found:
        if one.backbone != backbone:
            continue
        first = expectations(one, fitted_laws(found, without=one.source))[0]
        best = max(one.reached, key=lambda name: one.reached[name])
        case, known = one.advice["case"], first.accuracy
        rows.append(
            f"| {one.task} | {case['number']} | {case['similarity']['value']:.2f} | {first.strategy} "
            f"| {known.value:.3f} ({known.low:.3f} to {known.high:.3f}) | {one.reached[first.strategy]:.3f} "
            f"| {best}, {one.best:.3f} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "crossroads"
    profiles()
    plane()
    print(table())

"""Advice on the terminal: the case, what to do in order, the reasons, the depth profile."""

from __future__ import annotations

from crossroads.advice.candidates import Candidate
from crossroads.advice.evidence import Advice
from crossroads.advice.profile import Profile
from crossroads.report.console import print_lines, print_table

BAR = 30
"""Characters of a bar that stands for an accuracy of 1."""


def print_advice(found: Advice) -> None:
    """The case and the recommendation, then the ranking, the reasons, and a profile for each backbone."""
    lines: list[tuple[str, object]] = []
    if found.case is not None:
        doubt = f", though {found.case.doubt}" if found.case.doubt else ""
        lines += [
            ("case", f"{found.case.number}: {found.case.title}{doubt}"),
            ("size", f"{found.case.size:.2f} of 1"),
            ("similarity", found.case.similarity),
        ]
    lines += [("recommended", found.best.name), ("evidence_seconds", f"{found.evidence.seconds:.1f}")]
    print_lines(lines)
    print("\nwhat to do, the best first; of two within half a point the cheaper")
    header = ("strategy", "backbone", "cut", "pooling", "px", "expected accuracy", "95 %", "seconds", "memory MB", "")
    print_table(header, [_row(candidate) for candidate in found.ranked])
    print("\nwhy")
    for reason in found.reasons:
        print(f"- {reason}")
    for profile in found.evidence.profiles:
        print(f"\na probe at each depth of {profile.backbone}, {profile.images:,} images at {profile.image_size} px")
        print_profile(profile)


def print_profile(profile: Profile) -> None:
    """One line a depth, with a bar for the pretrained network and a mark where the random twin is."""
    rows = []
    for depth in profile.depths:
        bar = list("#" * round(BAR * depth.accuracy.value))
        random = "-"
        if depth.random is not None:
            random, mark = f"{depth.random.value:.3f}", round(BAR * depth.random.value)
            bar += [" "] * (mark + 1 - len(bar))
            bar[mark] = "|"
        rows.append((depth.cut, f"{depth.depth:.2f}", f"{depth.accuracy.value:.3f}", random, "".join(bar)))
    what = "random" if profile.similarity is None else "pretrained"
    print_table(("cut", "depth", what, "twin |" if what == "random" else "random |", "accuracy #"), rows)


def _row(candidate: Candidate) -> tuple[object, ...]:
    recipe, accuracy = candidate.recipe, candidate.accuracy
    return (
        recipe.strategy,
        recipe.backbone,
        recipe.cut or "end",
        recipe.pooling or "-",
        recipe.image_size,
        f"{accuracy.value:.3f}",
        f"{accuracy.low:.3f} to {accuracy.high:.3f}",
        f"{candidate.seconds:.0f}",
        f"{candidate.memory_mb:.0f}",
        candidate.obstacle or candidate.shortened,
    )

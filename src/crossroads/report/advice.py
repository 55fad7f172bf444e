"""Shows advice on the terminal: the case, the recommended strategies, the reasons and the depth profiles."""

from __future__ import annotations

from crossroads.advice.candidates import Candidate
from crossroads.advice.evidence import Advice
from crossroads.advice.profile import Profile
from crossroads.report.console import print_lines, print_table

BAR = 30
"""Length in characters of the bar for an accuracy of 1."""


def print_advice(advice: Advice) -> None:
    """Prints the case and the recommendation, the ranking, the reasons, and a depth profile of each backbone."""
    lines: list[tuple[str, object]] = []
    if advice.case is not None:
        doubt = f", but {advice.case.doubt}" if advice.case.doubt else ""
        lines += [
            ("case", f"{advice.case.number} ({advice.case.title}){doubt}"),
            ("size", f"{advice.case.size:.2f} (0 to 1)"),
            ("similarity", advice.case.similarity),
        ]
    lines += [("recommended", advice.best.name), ("evidence_seconds", f"{advice.evidence.seconds:.1f}")]
    print_lines(lines)
    print("\nRecommended strategies (within 0.5 points, the cheaper one comes first)")
    header = ("strategy", "backbone", "cut", "pooling", "px", "expected accuracy", "95 %", "seconds", "memory MB", "")
    print_table(header, [_row(candidate) for candidate in advice.ranked])
    print("\nReasons")
    for reason in advice.reasons:
        print(f"- {reason}")
    for profile in advice.evidence.profiles:
        print(f"\nProbe accuracy by depth: {profile.backbone}, {profile.images:,} images at {profile.image_size} px")
        print_profile(profile)


def print_profile(profile: Profile) -> None:
    """Prints one line per depth: a bar for the pretrained network and a mark for its random control."""
    rows = []
    for depth in profile.depths:
        bar = list("#" * round(BAR * depth.accuracy.value))
        random = "-"
        if depth.random is not None:
            random, mark = f"{depth.random.value:.3f}", round(BAR * depth.random.value)
            bar += [" "] * (mark + 1 - len(bar))
            bar[mark] = "|"
        rows.append((depth.cut, f"{depth.depth:.2f}", f"{depth.accuracy.value:.3f}", random, "".join(bar)))
    names = ("pretrained", "random |") if profile.pretrained else ("random", "control |")
    print_table(("cut", "depth", *names, "accuracy #"), rows)


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

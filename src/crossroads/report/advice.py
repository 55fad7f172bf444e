"""Shows advice on the terminal: the case, the recommended strategies, the reasons and the depth profiles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from crossroads.advice.candidates import Candidate
from crossroads.advice.evidence import Advice
from crossroads.advice.profile import Profile
from crossroads.report.page import Column, Page, Styled
from crossroads.report.words import duration

BAR = 30
"""Length in characters of the bar for an accuracy of 1."""

COLUMNS = (
    *(Column("strategy"), Column("backbone"), Column("cut", 4), Column("pooling", 6), Column("px", 7)),
    *(Column("accuracy"), Column("95 %", 2), Column("seconds", 1), Column("MB", 5), Column("", 3)),
)


def print_advice(advice: Advice, next_commands: Iterable[tuple[str, str]] = ()) -> None:
    """Writes the case and the recommendation, the ranking, the reasons, and a depth profile of each backbone."""
    page, best = Page(), advice.best
    with page.panel("advice"):
        page.headline("recommended", best.name)
        page.space()
        page.facts(_facts(advice))
    page.heading("Strategies by expected accuracy (within 0.5 points, the cheaper one comes first)")
    page.table(COLUMNS, [_row(candidate, first=candidate is best) for candidate in advice.ranked])
    page.heading("Reasons")
    page.items(advice.reasons)
    for profile in advice.evidence.profiles:
        page.heading(f"Probe accuracy by depth: {profile.backbone}, {profile.images:,} images at {profile.image_size} px")
        _print_profile(page, profile)
    page.commands(next_commands)


def _facts(advice: Advice) -> Iterator[tuple[str, object]]:
    yield "expected accuracy", Styled(advice.best.accuracy, "bold")
    if advice.case is not None:
        doubt = f", but {advice.case.doubt}" if advice.case.doubt else ""
        yield "case", f"{advice.case.number} ({advice.case.title}){doubt}"
        yield "size", f"{advice.case.size:.2f} (0 to 1)"
        yield "similarity", advice.case.similarity
    yield "time", duration(advice.evidence.seconds)


def _print_profile(page: Page, profile: Profile) -> None:
    """Writes one line per depth: a bar for the pretrained network and a mark for its random control."""
    rows = []
    for depth in profile.depths:
        bar = list(("━" if page.rich else "#") * round(BAR * depth.accuracy.value))
        random = "-"
        if depth.random is not None:
            random, mark = f"{depth.random.value:.3f}", round(BAR * depth.random.value)
            bar += [" "] * (mark + 1 - len(bar))
            bar[mark] = "|"
        drawn = Styled("".join(bar), "green")
        rows.append((depth.cut, f"{depth.depth:.2f}", f"{depth.accuracy.value:.3f}", random, drawn))
    names = ("pretrained", "random |") if profile.pretrained else ("random", "control |")
    page.table(("cut", Column("depth", 2), *names, Column(f"accuracy {'━' if page.rich else '#'}", 1)), rows)


def _row(candidate: Candidate, *, first: bool) -> tuple[object, ...]:
    recipe, accuracy = candidate.recipe, candidate.accuracy
    style = "bold green" if first else "dim" if candidate.obstacle else ""
    return (
        Styled(recipe.strategy, style),
        recipe.backbone,
        recipe.cut or "end",
        recipe.pooling or "-",
        recipe.image_size,
        Styled(f"{accuracy.value:.3f}", style),
        f"{accuracy.low:.3f} to {accuracy.high:.3f}",
        f"{candidate.seconds:.0f}",
        f"{candidate.memory_mb:.0f}",
        Styled(candidate.obstacle or candidate.shortened, "yellow"),
    )

"""Evidence in plain words."""

from __future__ import annotations

from collections.abc import Iterator

from crossroads.advice.baselines import Baselines
from crossroads.advice.candidates import Candidate
from crossroads.advice.cases import LARGE, SIMILAR, Case
from crossroads.advice.cost import format_seconds
from crossroads.advice.evidence import Evidence
from crossroads.advice.profile import Profile
from crossroads.advice.short_training import ShortTraining
from crossroads.advice.size import Curve, Size
from crossroads.strategies import strategy

LITTLE = 0.1
"""Gain below which it is said that pretraining adds next to nothing."""


def reasons_for(
    evidence: Evidence, leading: Profile | None, case: Case | None, order: tuple[Candidate, ...], budget: float | None
) -> Iterator[str]:
    """One sentence each: size, similarity, what more data would bring, what must be beaten, a warm start, the choice, the budget.

    Args:
        evidence: What was measured.
        leading: The profile that the case is drawn from; None where there is none.
        case: Which of the four.
        order: The candidates, the best first.
        budget: Of a run, in seconds.
    """
    yield _size_in_words(evidence.size)
    if leading is not None and case is not None:
        yield from _profile_in_words(leading, case)
    if evidence.curve is not None:
        yield _curve_in_words(evidence.curve, order)
    yield _level_in_words(evidence.baselines, order)
    if evidence.warm_start is not None and leading is not None:
        yield _warm_start_in_words(evidence.warm_start, leading)
    if case is not None and not order[0].obstacle:
        yield from _choice_in_words(case, order)
    yield from _budget_in_words(order, budget)


def _size_in_words(size: Size) -> str:
    words = f"{size.images:,} training images of {size.classes:,} classes"
    if size.groups is not None and size.within is not None:
        alike = f"whose images are alike by {size.within:.2f}"
        words += f" in {size.groups:,} groups, {alike}: worth about {size.effective:,.0f} independent ones"
    elif size.groups is not None:
        words += f" in {size.groups:,} groups, which count as one image each"
    elif size.repeated > 0.005:
        words += f", of which {size.repeated:.0%} repeat others: worth about {size.effective:,.0f}"
    kind = "large" if size.effective_per_class >= LARGE else "small"
    return f"{words}; {size.effective_per_class:,.0f} per class count as {kind} (large from {LARGE:.0f} on)"


def _profile_in_words(profile: Profile, case: Case) -> Iterator[str]:
    best, end = profile.best, profile.end
    where = f"{best.cut}, {best.depth:.0%} of the depth of {profile.backbone}"
    similar = profile.similarity
    as_good = next(depth for depth in profile.depths if depth.accuracy.value >= best.accuracy.low)
    if best.cut == end.cut and as_good.cut == end.cut:
        yield f"a probe's accuracy rises to the last layer, {where} ({best.accuracy.value:.3f}): what it learned last fits"
    elif best.cut == end.cut:
        earlier = f"within chance of {as_good.cut} before it ({as_good.accuracy.value:.3f})"
        yield f"a probe's accuracy is highest at the last layer, {where} ({best.accuracy.value:.3f}), {earlier}"
    elif best.accuracy.low > end.accuracy.value:
        yield (
            f"a probe's accuracy peaks at {where} ({best.accuracy.value:.3f}), and falls to {end.accuracy.value:.3f} at the end: "
            "the later layers are too specific"
        )
    else:
        yield f"a probe's accuracy is highest at {where} ({best.accuracy.value:.3f}), and no lower at the end beyond chance"
    if best.random is not None and similar is not None:
        adds = "what is more was learned from the source" if similar.gain > LITTLE else "pretraining adds next to nothing here"
        yield f"the same network with random weights reaches {profile.random:.3f} at its best depth: {adds}"
        side = "similar" if similar.value.value >= SIMILAR else "different"
        doubt = f", though {case.doubt}" if case.doubt else ""
        yield f"similarity {similar.value}: the images count as {side} (similar from {SIMILAR} on){doubt}"


def _curve_in_words(curve: Curve, order: tuple[Candidate, ...]) -> str:
    frozen = [one for one in order if strategy(one.recipe.strategy).frozen]
    trained = [one for one in order if not strategy(one.recipe.strategy).frozen]
    more = curve.gain
    words = f"twice the images would raise a probe on frozen features by about {100 * more:.1f} points, to {curve.twice}"
    if not (frozen and trained):
        return words
    lift = max(one.accuracy.value for one in trained) - max(one.accuracy.value for one in frozen)
    if lift > more:
        return f"{words}; more training is expected to be worth more than more data, {100 * max(0.0, lift):.1f} points"
    return f"{words}; more data are expected to be worth more than more training, which brings {100 * max(0.0, lift):.1f}"


def _level_in_words(level: Baselines, order: tuple[Candidate, ...]) -> str:
    words = (
        f"baselines: {level.majority:.3f} by always predicting the largest class, {level.pixels.value:.3f} by a probe on raw pixels"
    )
    if level.short is None:
        return words
    words += f", {level.short.accuracy.value:.3f} by {level.short.backbone} after a short training"
    small = next((one for one in order if one.recipe.strategy == "from-scratch"), None)
    rest = [one for one in order if one is not small and not one.obstacle]
    best = max(rest, key=lambda one: one.accuracy.value, default=None)
    if small is None or small.shortened or best is None or small.accuracy.value < best.accuracy.value - 0.01:
        return words
    share = small.seconds / max(1.0, best.seconds)
    this = "this network" if small.recipe.backbone == best.recipe.backbone else "this smaller network"
    does = f"reach {small.accuracy.value:.3f} where the best of the others, {best.name}, reaches {best.accuracy.value:.3f}"
    return f"{words}; trained to its end {this} is expected to {does}, in {share:.1f} times the time"


def _warm_start_in_words(short: ShortTraining, leading: Profile) -> str:
    trained = f"{short.epochs} epoch{'s' * (short.epochs > 1)} of {short.images:,} images"
    return (
        f"a short warm start of {short.backbone}, {trained}, reaches {short.accuracy.value:.3f} of images held out; a probe of "
        f"what the network had learned before, {leading.best.accuracy.value:.3f}"
    )


def _choice_in_words(case: Case, order: tuple[Candidate, ...]) -> Iterator[str]:
    """Where something else is put first than what the case is answered by."""
    answers = [one for one in order if strategy(one.recipe.strategy).case.startswith(f"{case.number}:")]
    if not answers or order[0] in answers:
        return
    first, usual = order[0], answers[0]
    yield (
        f"the case is a name, and expectations decide: {first.name} is put first for {first.accuracy.value:.3f} in "
        f"{format_seconds(first.seconds)} s, where {usual.name} is expected to reach {usual.accuracy.value:.3f} in "
        f"{format_seconds(usual.seconds)} s"
    )


def _budget_in_words(order: tuple[Candidate, ...], budget: float | None) -> Iterator[str]:
    if budget is not None and order[0].obstacle and all(one.seconds > budget for one in order):
        least = min(one.seconds for one in order)
        smallest = f"the smallest that does is about {format_seconds(least)} s"
        yield f"the budget of {format_seconds(budget)} s is too small for anything; {smallest}"
        return
    best = max((one.accuracy.value for one in order if not one.obstacle), default=0.0)
    better = [one for one in order if one.obstacle and one.accuracy.value > best]
    for one in order:
        if budget is not None and one.unshortened and (one is order[0] or one.unshortened.accuracy.value > best):
            yield (
                f"the budget of {format_seconds(budget)} s has room for {one.shortened} of {one.name}; with all of them, in "
                f"{one.unshortened.seconds:,.0f} s, it is expected to reach {one.unshortened.accuracy.value:.3f}"
            )
    for one in better[:2]:
        yield f"{one.name} is expected to do better ({one.accuracy.value:.3f}), but {one.obstacle}"

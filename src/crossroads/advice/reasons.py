"""States the reasons for the advice. Each conclusion from the evidence is one sentence with a code and figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from crossroads.advice.baselines import Baselines
from crossroads.advice.candidates import Candidate
from crossroads.advice.cases import LARGE, SIMILAR, Case
from crossroads.advice.cost import format_seconds
from crossroads.advice.evidence import Evidence
from crossroads.advice.profile import Profile
from crossroads.advice.short_training import ShortTraining
from crossroads.advice.size import Curve, Size
from crossroads.progress import Note
from crossroads.strategies import strategy

LITTLE = 0.1
"""Gain from pretraining below which it counts as next to nothing."""


def reasons_for(evidence: Evidence, case: Case | None, ranked: Sequence[Candidate], budget: float | None) -> Iterator[Note]:
    """Yields the reasons: size, similarity, more images, baselines, a warm start, the choice, the budget.

    Args:
        evidence: The measurements.
        case: One of the four; None without a pretrained backbone.
        ranked: The candidates, the best first.
        budget: Budget of a run in seconds.
    """
    leading = evidence.leading_profile
    yield _size(evidence.size)
    if leading is not None and case is not None:
        yield _depth(leading)
        yield from _similarity(leading, case)
    if evidence.curve is not None:
        yield _more_images(evidence.curve, ranked)
    yield _baselines(evidence.baselines, ranked)
    if evidence.warm_start is not None and leading is not None:
        yield _warm_start(evidence.warm_start, leading)
    if case is not None and not ranked[0].obstacle:
        yield from _choice(case, ranked)
    yield from _budget(ranked, budget)


def _size(size: Size) -> Note:
    text = f"{size.images:,} training images of {size.classes:,} classes"
    if size.groups is not None and size.group_correlation is not None:
        text += (
            f" in {size.groups:,} groups with a correlation of {size.group_correlation:.2f}, "
            f"equivalent to about {size.effective:,.0f} independent images"
        )
    elif size.groups is not None:
        text += f" in {size.groups:,} groups, each of which counts as one image"
    elif size.repeated > 0.005:
        text += f", {size.repeated:.0%} of them copies, equivalent to about {size.effective:,.0f} distinct images"
    kind, per_class = "large" if size.effective_per_class >= LARGE else "small", size.effective_per_class
    text += f"; {per_class:,.0f} per class count as {kind} (large from {LARGE:.0f} on)"
    return Note(text, "size", images=size.images, classes=size.classes, per_class=round(per_class, 1), kind=kind)


def _depth(profile: Profile) -> Note:
    """Returns a note on the depth at which a probe is most accurate. It says whether the difference is significant."""
    best, end = profile.best, profile.end
    place = f"{best.cut}, {best.depth:.0%} of the depth of {profile.backbone}"
    first_as_good = next(depth for depth in profile.depths if depth.accuracy.value >= best.accuracy.low)
    figures = {"backbone": profile.backbone, "cut": best.cut, "accuracy": best.accuracy.value, "end_accuracy": end.accuracy.value}
    if best.cut == end.cut and first_as_good.cut == end.cut:
        text = (
            f"a probe's accuracy rises up to the last layer, {place} ({best.accuracy.value:.3f}): the late layers suit these images"
        )
        return Note(text, "profile-rises-to-end", **figures)
    if best.cut == end.cut:
        text = (
            f"a probe's accuracy is highest at the last layer, {place} ({best.accuracy.value:.3f}), but not significantly higher "
            f"than at {first_as_good.cut} ({first_as_good.accuracy.value:.3f})"
        )
        return Note(text, "profile-flat-to-end", **figures, as_good=first_as_good.cut)
    if best.accuracy.low > end.accuracy.value:
        text = (
            f"a probe's accuracy peaks at {place} ({best.accuracy.value:.3f}), and falls to {end.accuracy.value:.3f} at the end: "
            "the late layers are too specialised"
        )
        return Note(text, "profile-peaks-early", **figures)
    text = f"a probe's accuracy is highest at {place} ({best.accuracy.value:.3f}), but not significantly lower at the end"
    return Note(text, "profile-flat", **figures)


def _similarity(profile: Profile, case: Case) -> Iterator[Note]:
    similar = profile.similarity
    if profile.best.random is None or similar is None:
        return
    adds = "the difference was learned in pretraining" if similar.gain > LITTLE else "pretraining adds next to nothing here"
    text = f"the same network with random weights reaches {profile.random:.3f} at its best depth: {adds}"
    yield Note(text, "random-control", accuracy=profile.random, gain=similar.gain)
    kind = "similar" if similar.value.value >= SIMILAR else "different"
    doubt = f", but {case.doubt}" if case.doubt else ""
    text = f"similarity {similar.value}: the images count as {kind} (similar from {SIMILAR} on){doubt}"
    yield Note(text, "similarity", **similar.value._asdict(), kind=kind, doubt=case.doubt and case.doubt.code)


def _more_images(curve: Curve, ranked: Sequence[Candidate]) -> Note:
    frozen = [each.accuracy.value for each in ranked if strategy(each.recipe.strategy).frozen]
    trained = [each.accuracy.value for each in ranked if not strategy(each.recipe.strategy).frozen]
    text = f"twice as many images would raise a probe on frozen features by about {100 * curve.gain:.1f} points, to {curve.twice}"
    if not (frozen and trained):
        return Note(text, "more-images", gain=curve.gain)
    gain = max(trained) - max(frozen)
    points = f"{100 * max(0.0, gain):.1f}"
    if gain > curve.gain:
        text += f"; training more layers is expected to add more, {points} points"
    else:
        text += f"; training more layers is expected to add less, {points} points"
    return Note(text, "more-images", gain=curve.gain, training_gain=gain)


def _baselines(baselines: Baselines, ranked: Sequence[Candidate]) -> Note:
    majority, pixels, short = baselines.majority, baselines.pixels.value, baselines.small_network
    text = f"baselines: {majority:.3f} by always predicting the largest class, {pixels:.3f} by a probe on raw pixels"
    figures: dict[str, object] = {"majority": majority, "pixels": pixels}
    if short is not None:
        text += f", {short.accuracy.value:.3f} by {short.backbone} after a short training"
        figures["small_network"] = short.accuracy.value
        if as_good := _as_good_from_scratch(ranked):
            text += f"; {as_good}"
            figures |= as_good.figures
    return Note(text, "baselines", **figures)


def _as_good_from_scratch(ranked: Sequence[Candidate]) -> Note | None:
    """Returns a note that the small network is about as good as the best other candidate. None if it is worse or shortened."""
    small = next((each for each in ranked if each.recipe.strategy == "from-scratch"), None)
    others = [each for each in ranked if each is not small and not each.obstacle]
    if small is None or small.unshortened or not others:
        return None
    best = max(others, key=lambda each: each.accuracy.value)
    if small.accuracy.value < best.accuracy.value - 0.01:
        return None
    times = small.seconds / max(1.0, best.seconds)
    network = "this network" if small.recipe.backbone == best.recipe.backbone else "this smaller network"
    text = (
        f"after complete training, {network} is expected to reach {small.accuracy.value:.3f} in {times:.1f} times the time of "
        f"the best other candidate, {best.name}, which reaches {best.accuracy.value:.3f}"
    )
    figures = {"trained": small.accuracy.value, "best": best.name, "best_accuracy": best.accuracy.value}
    return Note(text, "as-good-from-scratch", **figures)


def _warm_start(short: ShortTraining, leading: Profile) -> Note:
    trained = f"{short.epochs} epoch{'s' * (short.epochs > 1)} on {short.images:,} images"
    text = (
        f"a short warm start of {short.backbone}, {trained}, reaches {short.accuracy.value:.3f} on held-out images; a probe on its "
        f"pretrained features reaches {leading.best.accuracy.value:.3f}"
    )
    figures = {"epochs": short.epochs, "images": short.images, "accuracy": short.accuracy.value}
    return Note(text, "short-warm-start", backbone=short.backbone, **figures, probe=leading.best.accuracy.value)


def _choice(case: Case, ranked: Sequence[Candidate]) -> Iterator[Note]:
    """Yields a note if the first candidate is not the classic strategy of the case."""
    classic = [each for each in ranked if strategy(each.recipe.strategy).case.startswith(f"{case.number}:")]
    if not classic or ranked[0] in classic:
        return
    first, usual = ranked[0], classic[0]
    text = (
        f"the expected accuracy decides, not the case: {first.name} is expected to reach {first.accuracy.value:.3f} in "
        f"{format_seconds(first.seconds)} s, and {usual.name} to reach {usual.accuracy.value:.3f} in "
        f"{format_seconds(usual.seconds)} s"
    )
    yield Note(text, "choice-differs-from-case", case=case.number, first=first.name, classic=usual.name)


def _budget(ranked: Sequence[Candidate], budget: float | None) -> Iterator[Note]:
    if budget is not None and ranked[0].obstacle and all(each.seconds > budget for each in ranked):
        yield _too_small(budget, min(each.seconds for each in ranked))
        return
    best = max((each.accuracy.value for each in ranked if not each.obstacle), default=0.0)
    if budget is not None:
        yield from _limited(ranked, budget, best)
    better = [each for each in ranked if each.obstacle and each.accuracy.value > best]
    for each in better[:2]:
        text = f"{each.name} is expected to do better ({each.accuracy.value:.3f}), but {each.obstacle}"
        yield Note(text, "better-not-possible", candidate=each.name, accuracy=each.accuracy.value, reason=each.obstacle)


def _too_small(budget: float, least: float) -> Note:
    text = f"the budget of {format_seconds(budget)} s is too small for any candidate"
    text += f"; the fastest takes about {format_seconds(least)} s"
    return Note(text, "budget-too-small", budget=budget, least=round(least, 1))


def _limited(ranked: Sequence[Candidate], budget: float, best: float) -> Iterator[Note]:
    """Yields a note if the budget shortens the first candidate, or one that would be better than `best` with all its epochs."""
    for each in ranked:
        whole = each.unshortened
        if whole and (each is ranked[0] or whole.accuracy.value > best):
            text = (
                f"the budget of {format_seconds(budget)} s allows {each.shortened} of {each.name}; with all epochs, in "
                f"{whole.seconds:,.0f} s, it is expected to reach {whole.accuracy.value:.3f}"
            )
            epochs = {"epochs": each.recipe.epochs, "usual_epochs": whole.recipe.epochs}
            yield Note(text, "epochs-limited", candidate=each.name, **epochs, accuracy=whole.accuracy.value)

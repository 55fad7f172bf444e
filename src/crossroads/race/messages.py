"""Formats facts about a race as notes. Nothing here makes a decision."""

from __future__ import annotations

from collections.abc import Sequence

from crossroads.advice.candidates import Candidate
from crossroads.advice.cost import format_seconds
from crossroads.errors import install
from crossroads.progress import Note
from crossroads.race.comparing import clear_gain, in_common
from crossroads.race.decisions import Results, Skip
from crossroads.race.posterior import expected_after
from crossroads.race.records import CandidateRun, Plan, RaceCandidate
from crossroads.recipe import Recipe
from crossroads.strategies import strategy

OUT_OF_TIME = "the budget ended before its first epoch"
NO_TIME = "there is no time for it"


def left_out(recipe: Recipe, reason: str) -> Note:
    """Says why a candidate does not race."""
    return Note(f"{_name(recipe)} is left out: {reason}", "candidate-left-out", **_facts(recipe), reason=reason)


def first_answer(candidate: Candidate) -> Note:
    """Says that a candidate races although it exceeds a limit."""
    text = f"{_name(candidate.recipe)} is trained first, although it {candidate.obstacle}"
    return Note(text, "first-answer-over-limit", **_facts(candidate.recipe), reason=candidate.obstacle)


def limit_too_small(candidate: Candidate, *, may_shorten: bool) -> Note:
    """Says that a limit excludes every candidate, and which one is trained anyway."""
    limit, seconds = "budget" if candidate.fits else "memory", candidate.least_seconds(may_shorten=may_shorten)
    text = f"the {limit} is too small for any candidate; {_name(candidate.recipe)} is trained anyway, in about {seconds:,.0f} s"
    return Note(text, "limit-too-small", limit=limit, **_facts(candidate.recipe), seconds=round(seconds, 1))


def epochs_limited(candidate: Candidate) -> Note:
    """Says how many epochs of a candidate fit into the rest of the budget."""
    text = f"{_name(candidate.recipe)}: the rest of the budget allows about {candidate.shortened}"
    return Note(text, "epochs-limited", **_facts(candidate.recipe), epochs=candidate.recipe.epochs)


def no_time_to_train(needed: float, left: float) -> Note:
    """Returns the note that the budget allows no training after the first answer."""
    text = f"the first answer is final: training takes at least {needed:,.0f} s more, and {max(0.0, left):,.0f} s are left"
    return Note(text, "no-time-to-train", needed=round(needed, 1), left=round(left, 1))


def cannot_train() -> Note:
    """Returns the note that the first answer is final because Keras is not installed."""
    return Note(f"the first answer is final: training needs the extra train, {install('train')}", "cannot-train")


def no_time(budget: float | None) -> Note:
    """Returns the note that the budget ended while evidence was measured."""
    return Note(f"the budget of {budget:g} s ended before the race; the first answer is kept", "budget-ended", budget=budget)


def started(plan: Plan) -> Note:
    """Announces the race, and the candidates with their expected accuracies as figures."""
    expected = {_name(candidate.recipe): round(candidate.accuracy.value, 4) for candidate in plan.candidates}
    left = format_seconds(max(0.0, plan.budget - plan.spent))
    text = f"comparing {len(expected)} candidates in the {left} s that are left; Ctrl-C keeps the best result so far"
    return Note(text, "race-started", budget=plan.budget, expected=expected)


def run_started(results: Results, index: int, epochs: int | None, name: str) -> Note:
    """Returns the note that the run with this name starts."""
    candidate = results.candidate(index)
    part = "" if epochs == candidate.recipe.epochs else f", {epochs} of {candidate.recipe.epochs} epochs"
    text, expected = f"trying {short_name(results.plan, candidate.recipe)}{part}", None
    if candidate.estimated:
        expected = round(results.expected(index, epochs).value, 4)
        text += f": accuracy {expected:.3f} expected"
    facts = _facts(candidate.recipe) | {"epochs": epochs, "usual_epochs": candidate.recipe.epochs, "expected": expected}
    return Note(text, "run-started", **facts, run=name)


def skipped(results: Results, skips: Sequence[Skip]) -> Note:
    """Returns the note on why candidates do not run now. All have the same reason."""
    reason, available = skips[0].reason, f"{skips[0].available:,.0f} s"
    least = min(skips, key=lambda skip: skip.seconds)
    needs = f"{'one epoch' if least.epochs == 1 else f'{least.epochs} epochs'} would take about {least.seconds:,.0f} s"
    texts = {
        "no-gain": f"at most {max(skip.reachable for skip in skips):.3f} is expected, no more than the best so far",
        "budget-spent": "the budget is spent",
        "too-slow": f"about {least.seconds:,.0f} s would be needed, and {available} are left",
        "too-few-epochs": f"{needs}, and {available} are left",
        "outranked": "higher-ranked candidates used the time",
        "no-time-in-first-rung": f"{needs}, and {available} of the first rung are left",
        "no-first-rung": f"{needs}, and the first rung has {available} for it",
    }
    continues = all(results.successes(skip.candidate) for skip in skips)
    names = ", ".join(short_name(results.plan, results.candidate(skip.candidate).recipe) for skip in skips)
    text = f"{'not continued' if continues else 'not tried'}: {names}; {texts[reason]}"
    rows = [
        _facts(results.candidate(skip.candidate).recipe)
        | {"epochs": skip.epochs, "seconds": round(skip.seconds, 1), "available": round(skip.available, 1)}
        for skip in skips
    ]
    return Note(text, "candidates-skipped", reason=reason, candidates=rows)


def abandoned(candidate: RaceCandidate, run: CandidateRun) -> Note:
    """Returns the note on why a run failed."""
    code = "run-out-of-time" if run.out_of_time else "run-failed"
    return Note(f"{_name(candidate.recipe)} was abandoned: {run.failed}", code, **_facts(candidate.recipe), reason=run.failed)


def none_trained() -> Note:
    """Returns the note that all candidates failed."""
    return Note("no candidate could be trained. The advice is kept: resume the run to try them again", "no-candidate-trained")


def ended_early(candidate: RaceCandidate, run: CandidateRun) -> Note:
    """Returns the note that a run ended before its last epoch."""
    return Note(
        f"{_name(candidate.recipe)} ends after {run.epochs} of {run.planned} epochs because it is out of time",
        "run-ended-early",
        **_facts(candidate.recipe),
        epochs=run.epochs,
        planned=run.planned,
    )


def stopped() -> Note:
    """Returns the note that Ctrl-C has ended the race."""
    return Note("stopped: the best finished candidate is kept; testing and saving it takes a few seconds", "race-stopped")


def without_folds(results: Results, run: CandidateRun, reason: str) -> Note:
    """Returns the note that a training is judged by few validation images, and why it is not cross-validated."""
    candidate, images = results.candidate(run.candidate), len(run.correct)
    text = f"{_name(candidate.recipe)} is not cross-validated ({reason}), so its {images} validation images decide"
    return Note(text, "not-cross-validated", **_facts(candidate.recipe), images=images, reason=reason)


def folds_started(results: Results, run: CandidateRun, count: int) -> Note:
    """Returns the note that a training is cross-validated."""
    candidate = results.candidate(run.candidate)
    text = (
        f"{len(run.correct)} validation images are too few to compare {_name(candidate.recipe)} with the best head, so it is "
        f"cross-validated with {count} folds"
    )
    return Note(text, "folds-started", **_facts(candidate.recipe), images=len(run.correct), folds=count)


def folds_compared(results: Results, run: CandidateRun, head: CandidateRun) -> Note:
    """Returns the note on how a cross-validated training compares with the best head."""
    gain, difference, error = clear_gain(run, head)
    ours, theirs = in_common(run, head) or ((), ())
    candidate, other = results.candidate(run.candidate), results.candidate(head.candidate)
    verdict = "exceeds" if gain else "does not exceed"
    text = (
        f"cross-validated on the same {len(ours)} images, {_name(candidate.recipe)} is right on {int(sum(ours))} and "
        f"{_name(other.recipe)} on {int(sum(theirs))}; the gain {verdict} the standard error of {error * len(ours):.1f} images"
    )
    return Note(
        text,
        "folds-compared",
        **_facts(candidate.recipe),
        images=len(ours),
        difference=round(difference, 4),
        error=round(error, 4),
        gain=gain,
    )


def epoch_shortened(done: int, total: int) -> Note:
    """Returns the warning that the budget ended within the first epoch of the only candidate."""
    text = (
        f"the budget ended within the first epoch, so the network was trained on {done:,} of {total:,} batches; set a longer budget"
    )
    return Note(text, "epoch-shortened", batches=done, total=total)


def over_budget(results: Results) -> Note:
    """Returns the note on why a race took longer than its budget."""
    spent, advice, budget = results.spent, results.plan.spent, results.plan.budget
    return Note(
        f"the race took {format_seconds(spent)} s, and the budget was {format_seconds(budget)} s: the evidence took "
        f"{format_seconds(advice)} s, and the first candidate is trained whatever the budget",
        "race-over-budget",
        seconds=round(spent, 1),
        budget=budget,
        evidence_seconds=round(advice, 1),
    )


def won(results: Results) -> Note:
    """Says which candidate won, and by how much."""
    winner = results.winner()
    candidate = results.candidate(winner.candidate)
    failures = _failures(results)
    expected, posterior = None, None
    if candidate.estimated:
        expected, posterior = round(expected_after(candidate, winner.epochs, ()).value, 4), round(results.posterior(winner), 4)
    facts = _facts(candidate.recipe) | {
        "accuracy": winner.accuracy, "expected": expected, "posterior": posterior, "failed": failures, "improved": winner.improved,
    }  # fmt: skip
    text = f"{_credited(results, winner)} won with {winner.accuracy:.4f} on validation"
    if failures:
        text += f" ({', '.join(failures)} failed)"
    others = [run for run in results.answers() if run.candidate != winner.candidate]
    if not others:
        return Note(f"{text}; no other candidate has a result", "race-won", **facts)
    second = max(others, key=results.posterior)
    compared = in_common(winner, second)
    right, right_second = (0, 0) if compared is None else map(int, map(sum, compared))
    margin = abs(winner.accuracy - second.accuracy) * winner.images if compared is None else float(abs(right - right_second))
    text += f"; the next best, {_credited(results, second)}, reached {second.accuracy:.4f}"
    heads = all(strategy(results.candidate(run.candidate).recipe.strategy).frozen for run in (winner, second))
    within_error = compared is not None and right_second > right and not heads
    if compared is not None and heads:
        text += (
            f". Their losses are {winner.validation_loss:.3f} and {second.validation_loss:.3f}. On few images the losses decide, "
            "and early features must be clearly better"
        )
    elif compared is not None and within_error:
        kind = "cross-validated" if winner.crossed and second.crossed else "validation"
        text += (
            f". On the same {len(compared[0])} {kind} images the first is right on {right}, the second on {right_second}. "
            "That may be chance, so the cheaper one is kept"
        )
    elif margin == 0:
        text += ". They are equal on validation, so the cheaper one is kept" if results.is_cheaper(winner, second) else ""
    elif margin < 1:
        text += f"; they differ by less than one of {winner.images:,.0f} validation images"
    runner_up = results.candidate(second.candidate).recipe.strategy
    facts |= {"runner_up": runner_up, "margin_images": round(margin, 2), "within_error": within_error}
    return Note(text, "race-won", **facts)


def _credited(results: Results, run: CandidateRun) -> str:
    """Returns the name of what a run delivered: its candidate, or the head that its training did not improve on."""
    candidate = results.candidate(run.candidate)
    name = short_name(results.plan, candidate.recipe)
    return f"{name}{_part(candidate, run)}" if run.improved else f"the head that {name} began with"


def _failures(results: Results) -> list[str]:
    """Returns the strategies that failed for another reason than time."""
    failed = [run for run in results.runs if run.failed and not run.out_of_time]
    return list(dict.fromkeys(str(results.candidate(run.candidate).recipe.strategy) for run in failed))


def _name(recipe: Recipe) -> str:
    return f"{recipe.strategy} with {recipe.backbone}"


def short_name(plan: Plan, recipe: Recipe) -> str:
    """Returns the name of a candidate: its strategy, with the backbone only if another candidate has the same strategy."""
    same = sum(candidate.recipe.strategy == recipe.strategy for candidate in plan.candidates)
    return str(recipe.strategy) if same == 1 else _name(recipe)


def _facts(recipe: Recipe) -> dict[str, object]:
    return {"strategy": recipe.strategy, "backbone": recipe.backbone}


def _part(candidate: RaceCandidate, run: CandidateRun) -> str:
    """Returns how many of its epochs a run had, or "" if it had all."""
    return "" if run.epochs == candidate.recipe.epochs else f" with {run.epochs} of {candidate.recipe.epochs} epochs"

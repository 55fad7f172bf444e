"""Formats facts about a race as notes. Nothing here makes a decision."""

from __future__ import annotations

from crossroads.advice.candidates import Candidate
from crossroads.advice.cost import format_seconds
from crossroads.errors import install
from crossroads.progress import Note
from crossroads.race.decisions import Results, Skip
from crossroads.race.posterior import expected_after
from crossroads.race.records import CandidateRun, Plan, RaceCandidate
from crossroads.recipe import Recipe
from crossroads.strategies import strategy

OUT_OF_TIME = "the budget ended before its first epoch"


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


def too_short_to_train(recipe: Recipe, budget: float, seconds: float) -> Note:
    """Returns the warning that the budget is too short for one epoch of the named strategy, which has it anyway."""
    text = f"the budget of {budget:g} s is too short for one epoch of {recipe.strategy}, which takes about {seconds:,.0f} s in all"
    return Note(f"{text} and is trained anyway", "limit-too-small", limit="budget", **_facts(recipe), seconds=round(seconds, 1))


def no_time(budget: float | None) -> Note:
    """Returns the note that the budget ended while evidence was measured."""
    return Note(f"the budget of {budget:g} s ended before the race; the first answer is kept", "budget-ended", budget=budget)


def started(plan: Plan) -> Note:
    """Announces the candidates with their expected accuracies."""
    expected = {_name(candidate.recipe): round(candidate.accuracy.value, 4) for candidate in plan.candidates}
    names = ", ".join(f"{name} {value:.3f}" for name, value in expected.items())
    return Note(
        f"the race has a budget of {format_seconds(plan.budget)} s; Ctrl-C keeps the best finished candidate. "
        f"Expected accuracies: {names}",
        "race-started",
        budget=plan.budget,
        expected=expected,
    )


def run_started(results: Results, index: int, epochs: int | None) -> Note:
    """Returns the note that a run starts."""
    candidate, expected = results.candidate(index), results.expected(index, epochs).value
    part = "" if epochs == candidate.recipe.epochs else f", {epochs} of {candidate.recipe.epochs} epochs"
    return Note(
        f"trying {_name(candidate.recipe)}{part}: {expected:.3f} expected",
        "run-started",
        **_facts(candidate.recipe),
        epochs=epochs,
        usual_epochs=candidate.recipe.epochs,
        expected=round(expected, 4),
    )


def skipped(results: Results, skip: Skip) -> Note:
    """Returns the note on why a candidate does not run now."""
    candidate = results.candidate(skip.candidate)
    name, continues = _name(candidate.recipe), bool(results.successes(skip.candidate))
    epochs = "one epoch" if skip.epochs == 1 else f"{skip.epochs} epochs"
    needs, available = f"would take about {skip.seconds:,.0f} s with its start and its saving", f"{skip.available:,.0f} s"
    texts = {
        "no-gain": f"it is expected to reach at most {skip.reachable:.3f}, no more than the best so far",
        "budget-spent": "the budget is spent",
        "too-slow": f"it {needs}, and {available} are left",
        "too-few-epochs": f"{epochs} {needs}, and {available} are left",
        "outranked": "higher-ranked candidates used the time",
        "no-time-in-first-rung": f"{epochs} {needs}, and its part of the first rung is {available}",
        "no-first-rung": f"one epoch of the most promising candidate, {name}, {needs}, and it has {available} of the first rung",
    }
    verb = "is not continued" if continues else "is skipped"
    if skip.reason == "no-time-in-first-rung":
        verb += " in the first rung"
    start = "the first rung is skipped" if skip.reason == "no-first-rung" else f"{name} {verb}"
    return Note(
        f"{start}: {texts[skip.reason]}",
        "candidate-skipped",
        **_facts(candidate.recipe),
        reason=skip.reason,
        epochs=skip.epochs,
        seconds=round(skip.seconds, 1),
        available=round(skip.available, 1),
    )


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
    expected = expected_after(candidate, winner.epochs, ()).value
    failures = _failures(results)
    facts = _facts(candidate.recipe) | {
        "accuracy": winner.accuracy, "expected": round(expected, 4), "posterior": round(results.posterior(winner), 4),
        "failed": failures,
    }  # fmt: skip
    text = f"{_name(candidate.recipe)} won{_part(candidate, winner)}: {winner.accuracy:.4f} on validation, {expected:.3f} expected"
    if failures:
        text += f" ({', '.join(failures)} failed)"
    others = [run for run in results.answers() if run.candidate != winner.candidate]
    if not others:
        return Note(f"{text}; no other candidate has a result", "race-won", **facts)
    second = max(others, key=results.posterior)
    runner_up = results.candidate(second.candidate)
    compared = bool(second.correct) and len(second.correct) == len(winner.correct)
    right, right_second = (run.correct.count("1") for run in (winner, second))
    margin = float(abs(right - right_second)) if compared else abs(winner.accuracy - second.accuracy) * winner.images
    text += (
        f", combined estimate {results.posterior(winner):.3f}; the next best, {_name(runner_up.recipe)}{_part(runner_up, second)}, "
        f"reached {second.accuracy:.4f}, combined estimate {results.posterior(second):.3f}"
    )
    heads = all(strategy(each.recipe.strategy).frozen for each in (candidate, runner_up))
    within_error = compared and right_second > right and not heads
    if compared and heads:
        text += (
            f". Their losses are {winner.validation_loss:.3f} and {second.validation_loss:.3f}. On few images the losses decide, "
            "and early features must be clearly better"
        )
    elif within_error:
        text += (
            f". On the same {len(winner.correct)} validation images the first is right on {right}, the second on {right_second}. "
            "That may be chance, so the cheaper one is kept"
        )
    elif margin < 1:
        text += f"; they differ by less than one of {winner.images:,.0f} validation images"
    facts |= {"runner_up": runner_up.recipe.strategy, "margin_images": round(margin, 2), "within_error": within_error}
    return Note(text, "race-won", **facts)


def _failures(results: Results) -> list[str]:
    """Returns the strategies that failed for another reason than time."""
    failed = [run for run in results.runs if run.failed and not run.out_of_time]
    return list(dict.fromkeys(str(results.candidate(run.candidate).recipe.strategy) for run in failed))


def _name(recipe: Recipe) -> str:
    return f"{recipe.strategy} with {recipe.backbone}"


def _facts(recipe: Recipe) -> dict[str, object]:
    return {"strategy": recipe.strategy, "backbone": recipe.backbone}


def _part(candidate: RaceCandidate, run: CandidateRun) -> str:
    """Returns how many of its epochs a run had, or "" if it had all."""
    return "" if run.epochs == candidate.recipe.epochs else f" with {run.epochs} of {candidate.recipe.epochs} epochs"

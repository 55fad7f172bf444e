"""Says in one sentence why the case, the recommendation and the winner of a race differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from crossroads.progress import Note
from crossroads.race.decisions import Results, Skip
from crossroads.race.messages import short_name
from crossroads.race.records import CandidateRun
from crossroads.strategies import STRATEGIES


@dataclass(frozen=True, slots=True)
class Ended:
    """How a race ended.

    Attributes:
        results: Its results.
        skipped: The last decision not to run a candidate, by its index in the plan.
        stopped: Whether Ctrl-C ended it.
        first_is_final: Why nothing was tried after the first answer; None if something was, or could have been.
    """

    results: Results
    skipped: Mapping[int, Skip]
    stopped: bool
    first_is_final: Note | None = None


def explain_choice(ended: Ended) -> Note | None:
    """Returns why the winner is not what the case or the advice suggests; None if they agree, or if there was nothing to choose.

    The figures are the number of the `case`, the strategies `of_case`, the `recommended` one, the `winner`, and the `reason`:
    ``expected``, ``not-possible``, ``not-a-candidate``, ``measured``, ``loss``, ``tie``, ``within-error``, ``estimate``,
    ``no-improvement``, ``no-gain``, ``out-of-time``, ``stopped``, ``failed``, or the code of `Ended.first_is_final`.
    """
    results = ended.results
    winner = results.candidate(results.winner().candidate).recipe
    if ended.first_is_final is not None:
        reason, text = ended.first_is_final.code, str(ended.first_is_final)
        return Note(text, "choice", case=None, of_case=[], recommended=None, winner=winner.strategy, reason=reason)
    ranked = cast(list[dict[str, object]], results.plan.advice.get("ranked") or [])
    if not ranked:
        return None
    case = cast(dict[str, int], results.plan.advice.get("case") or {}).get("number")
    classic = _of_case(case)
    recommended = ranked[0]
    index = _candidate(results, str(recommended["strategy"]), str(recommended["backbone"]))
    follows = (recommended["strategy"], recommended["backbone"]) == (winner.strategy, winner.backbone)
    if follows and (not classic or winner.strategy in classic):
        return None
    name = short_name(results.plan, winner)
    if follows:
        reason, because = _why_not_of_case(ended, ranked, classic[0])
        text = f"Case {case} suggests {classic[0]}. {name} was recommended and won because {because}"
    else:
        advised = str(recommended["strategy"])
        if advised == winner.strategy:
            advised = f"{advised} with {recommended['backbone']}"
        reason, because = _why_not(ended, index, advised)
        text = f"{_suggestions(case, classic, advised, str(winner.strategy))}. {name} won because {because}"
    facts = {"case": case, "of_case": list(classic), "recommended": recommended["strategy"], "winner": winner.strategy}
    return Note(text, "choice", **facts, reason=reason)


def _of_case(number: int | None) -> tuple[str, ...]:
    """Returns the strategies of one of the four cases, the classic one first."""
    of_case = [record for record in STRATEGIES if number is not None and record.case.startswith(f"{number}:")]
    return tuple(record.name for record in sorted(of_case, key=lambda record: "alternative" in record.case))


def _suggestions(case: int | None, classic: tuple[str, ...], advised: str, winner: str) -> str:
    """Returns what the case suggests, unless it is the winner, and what the advice recommends."""
    if not classic or winner in classic:
        return f"The advice recommended {advised}"
    if advised in classic:
        return f"Case {case} suggests {advised}, and the advice recommended it"
    return f"Case {case} suggests {classic[0]}, and the advice recommended {advised}"


def _candidate(results: Results, strategy: str, backbone: str | None = None) -> int | None:
    """Returns the first candidate with this strategy, and this backbone if one is given."""
    for index, candidate in enumerate(results.plan.candidates):
        if candidate.recipe.strategy == strategy and backbone in (None, candidate.recipe.backbone):
            return index
    return None


def _why_not_of_case(ended: Ended, ranked: list[dict[str, object]], classic: str) -> tuple[str, str]:
    """Returns why the recommended strategy, which won, is not the classic one of the case: a code, and a clause."""
    results = ended.results
    index = _candidate(results, classic)
    if index is not None and results.successes(index):
        return _why_not(ended, index, classic)
    advised = next((row for row in ranked if row["strategy"] == classic), None)
    if advised is None:
        return "not-a-candidate", f"{classic} was left out"
    if advised["obstacle"]:
        return "not-possible", f"{classic} {advised['obstacle']}"
    return "expected", f"{_expected(ranked[0])} was expected of it and {_expected(advised)} of {classic}"


def _expected(row: dict[str, object]) -> str:
    return f"{cast(dict[str, float], row['accuracy'])['value']:.3f}"


def _why_not(ended: Ended, index: int | None, name: str) -> tuple[str, str]:
    """Returns why a candidate did not win: a code, and a clause."""
    if index is None:
        return "not-a-candidate", f"{name} was left out"
    results = ended.results
    answers = [run for run in results.answers() if run.candidate == index]
    if answers:
        return _compared(results, max(answers, key=results.posterior), name)
    failed = next((run for run in results.runs if run.candidate == index and run.failed), None)
    if failed is not None and not failed.out_of_time:
        return "failed", f"{name} failed: {failed.failed}"
    skip = ended.skipped.get(index)
    if skip is not None and skip.reason == "no-gain":
        return "no-gain", f"at most {skip.reachable:.3f} was expected of {name}, no more than the best result"
    if ended.stopped:
        return "stopped", f"Ctrl-C ended the run before {name} had a result"
    return "out-of-time", f"the time ran out before {name} had a result"


def _compared(results: Results, run: CandidateRun, name: str) -> tuple[str, str]:
    """Returns why a run did not beat the winner: a code, and a clause."""
    winner, candidate = results.winner(), results.candidate(run.candidate)
    won = "the head" if winner.epochs is None else short_name(results.plan, results.candidate(winner.candidate).recipe)
    if not run.improved:
        return "no-improvement", f"the training of {name} did not improve on the head that it began with"
    if run.epochs != candidate.recipe.epochs:
        name += f", with {run.epochs} of {candidate.recipe.epochs} epochs,"
    if run.correct and run.epochs is winner.epochs is None:
        kept = short_name(results.plan, results.candidate(winner.candidate).recipe)
        losses = f"the loss of {name} is {run.validation_loss:.3f} and that of {kept} {winner.validation_loss:.3f}"
        return "loss", f"{losses}, and early features must be clearly better"
    if run.correct and len(run.correct) == len(winner.correct):
        ours, theirs, images = winner.correct.count("1"), run.correct.count("1"), len(winner.correct)
        clause = f"{name} was right on {theirs} of {images} validation images and {won} on {ours}"
        if theirs > ours:
            return "within-error", f"{clause}, which may be chance"
        return ("tie" if theirs == ours else "measured"), clause
    clause = f"{name} reached {run.accuracy:.3f} on validation and {won} {winner.accuracy:.3f}"
    if run.accuracy > winner.accuracy:
        return "estimate", f"{clause}, and less was expected of {name}"
    return ("tie" if run.accuracy == winner.accuracy else "measured"), clause

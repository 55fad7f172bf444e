"""The decisions of a race as functions of the plan and the results: no clock, no folder, no training."""

from dataclasses import replace

import pytest

from crossroads.advice.estimate import Estimate
from crossroads.race.decisions import Results, Run, Skip, Stop, next_actions
from crossroads.race.messages import won
from crossroads.race.records import CandidateRun, Plan, RaceCandidate
from crossroads.recipe import Recipe

HEAD = RaceCandidate(Recipe(strategy="feature-extraction", backbone="b"), Estimate(0.80, 0.72, 0.86), 10.0)


def trains(name, value, seconds=80.0, shortens=True):
    return RaceCandidate(Recipe(strategy=name, backbone="b", epochs=8), Estimate(value, 0.6, 0.96), seconds, seconds / 8, shortens)


FINETUNE, WARM, SCRATCH = trains("finetune", 0.86), trains("warm-start", 0.84), trains("from-scratch", 0.82)


def plan(*candidates, budget=600.0):
    return Plan(candidates, budget, 0.0, {})


def result(candidate, epochs=None, accuracy=0.8, seconds=None, **options):
    """Returns a run that took the expected time of 10 s per epoch."""
    whole = epochs in (None, 8)
    took = seconds if seconds is not None else 10.0 * (epochs or 1)
    return CandidateRun(f"{candidate}-{epochs}", candidate, epochs, epochs, whole, took, 10.0, accuracy, 0.1, 200.0, **options)


def failure(candidate, epochs=None, seconds=1.0):
    return CandidateRun(f"{candidate}", candidate, epochs, 0, False, seconds, failed="no memory")


def test_the_frozen_head_runs_first_whatever_its_rank_and_the_budget():
    assert next_actions(plan(FINETUNE, HEAD, budget=1.0), []) == (Run(1, None, needed=True),)
    assert next_actions(plan(HEAD, budget=1.0), []) == (Run(0, None, needed=True, last_chance=True),)


def test_the_first_rung_runs_each_candidate_for_a_quarter_of_its_epochs_within_half_of_the_time():
    made, runs = plan(HEAD, FINETUNE, WARM), [result(0)]
    assert next_actions(made, runs) == (Run(1, 2, until=305.0),)  # 10 s are spent, and 295 are half of the rest
    runs.append(result(1, 2, 0.85))
    assert next_actions(made, runs) == (Run(2, 2, until=305.0),)


def test_the_second_rung_runs_the_better_half():
    made = plan(HEAD, FINETUNE, WARM)
    runs = [result(0), result(1, 2, 0.85), result(2, 2, 0.92)]
    assert next_actions(made, runs) == (Run(2, 8),)
    assert next_actions(made, [*runs, result(2, 8, 0.95)]) == (Stop(),)


def test_a_second_rung_is_as_long_as_the_budget_allows():
    """Of 130 s, 50 are spent. A planned epoch takes 11 s, so the other 80 s have room for 7."""
    runs = [result(0), result(1, 2, 0.85), result(2, 2, 0.92)]
    assert next_actions(plan(HEAD, FINETUNE, WARM, budget=130.0), runs) == (Run(2, 7),)


def test_skips_come_before_the_next_action_with_their_reasons():
    (skip, stop) = next_actions(plan(HEAD, FINETUNE, budget=15.0), [result(0)])
    assert skip == Skip(1, "too-few-epochs", 1, 11.0, 5.0)
    assert stop == Stop()
    (skip, _) = next_actions(plan(HEAD, FINETUNE), [replace(result(0, accuracy=0.98), images=10_000)])
    assert (skip.candidate, skip.reason) == (1, "no-gain")


def test_without_time_for_the_most_promising_in_the_first_rung_it_runs_alone():
    skip, run = next_actions(plan(HEAD, FINETUNE, WARM, budget=40.0), [result(0)])
    assert (skip.candidate, skip.reason, skip.available) == (1, "no-first-rung", 7.5)
    assert run == Run(1, 2)


def test_a_candidate_that_others_left_no_time_for_is_outranked():
    runs = [result(0), result(1, 2)]
    skip, stop = next_actions(plan(HEAD, FINETUNE, WARM, budget=40.0), runs)
    assert (skip, stop) == (Skip(2, "outranked"), Stop())


def test_a_candidate_that_failed_is_out_and_the_others_go_on():
    assert next_actions(plan(HEAD, FINETUNE, WARM), [result(0), failure(1, 2)])[-1].candidate == 2
    assert next_actions(plan(HEAD, FINETUNE, WARM), [result(0), failure(1, 2), failure(2, 2)]) == (Stop(),)


def test_if_the_head_fails_the_next_candidate_is_needed():
    assert next_actions(plan(HEAD, FINETUNE, WARM), [failure(0)]) == (Run(1, 8, needed=True),)
    assert next_actions(plan(HEAD, FINETUNE), [failure(0)]) == (Run(1, 8, needed=True, last_chance=True),)


def test_epochs_that_the_user_set_are_kept_or_skipped():
    fixed = trains("finetune", 0.86, shortens=False)
    assert next_actions(plan(HEAD, fixed, budget=120.0), [result(0)]) == (Run(1, 8),)
    assert next_actions(plan(HEAD, fixed, budget=60.0), [result(0)])[0] == Skip(1, "too-few-epochs", 8, 88.0, 50.0)


@pytest.mark.parametrize(("head", "finetuned", "winner"), [(0.80, 0.90, 1), (0.90, 0.895, 0)])
def test_the_winner_has_the_highest_posterior_and_is_no_worse_than_the_first_head(head, finetuned, winner):
    results = Results(plan(HEAD, FINETUNE), (result(0, accuracy=head), result(1, 8, finetuned)))
    assert results.winner().candidate == winner


def test_of_equal_accuracies_a_training_that_kept_its_initial_head_does_not_win():
    runs = (result(0, accuracy=0.9), result(1, 8, 0.9, improved=False))
    assert Results(plan(HEAD, FINETUNE), runs).winner().candidate == 0


def few(candidate, epochs, correct, accuracy):
    return replace(result(candidate, epochs, accuracy), correct=correct, images=float(len(correct)))


@pytest.mark.parametrize(
    ("head", "trained", "winner"),
    [
        ("11100000", "11111111", 1),  # 5 images more: above twice the error of 2.2
        ("11110000", "11111111", 0),  # 4 images more equal twice their error
        ("11110110" * 4, "11111111" * 4, 1),  # 8 of 32 images: above the error of 2.8
        ("11111110" + "1" * 24, "11111111" + "1" * 24, 0),  # 1 image more equals its error
        ("11110000" + "1" * 24, "00111111" + "1" * 24, 0),  # 4 and 2 images: 2 are below the error of 2.4
        ("11111111", "11111111", 0),
        ("", "", 1),  # many images: the accuracies are compared
    ],
)
def test_with_few_validation_images_a_training_must_beat_the_best_head_image_by_image(head, trained, winner):
    runs = (few(0, None, head, 0.75), few(1, 8, trained, 1.0))
    assert Results(plan(HEAD, FINETUNE), runs).winner().candidate == winner


def test_with_few_validation_images_early_features_need_a_clearly_lower_loss():
    early = RaceCandidate(Recipe(strategy="early-features", backbone="b"), HEAD.accuracy, 10.0)
    clearly, barely = (
        tuple(
            replace(few(index, None, "1100" * 25, accuracy), validation_loss=loss) for index, (accuracy, loss) in enumerate(scores)
        )
        for scores in (((0.8, 0.7), (0.7, 0.6)), ((0.8, 0.7), (0.9, 0.66)))
    )
    assert Results(plan(HEAD, early), clearly).winner().candidate == 1
    assert Results(plan(HEAD, early), barely).winner().candidate == 0  # the margin is 0.5 / sqrt(100)
    many = tuple(replace(head, correct="") for head in clearly)
    assert Results(plan(HEAD, early), many).winner().candidate == 0


def test_frames_of_one_object_count_as_their_effective_number():
    head, trained = few(0, None, "1111000000" * 4, 0.4), few(1, 8, "1111111111" * 4, 1.0)
    assert Results(plan(HEAD, FINETUNE), (head, trained)).winner().candidate == 1
    assert Results(plan(HEAD, FINETUNE), (head, replace(trained, images=1.5))).winner().candidate == 0


def test_the_note_on_the_winner_says_that_a_higher_score_is_within_the_error():
    runs = (few(0, None, "11110000", 0.8), few(1, 8, "11111000", 0.99))
    note = won(Results(plan(HEAD, FINETUNE), runs))
    assert (note.figures["strategy"], note.figures["runner_up"]) == ("feature-extraction", "finetune")
    assert note.figures["within_error"]
    assert note.figures["margin_images"] == 1
    clear = won(Results(plan(HEAD, FINETUNE), (few(0, None, "11000000", 0.8), few(1, 8, "11111111", 0.99))))
    assert clear.figures["strategy"] == "finetune"
    assert not clear.figures["within_error"]


def test_a_tie_on_validation_goes_to_the_cheaper_candidate():
    equal = Results(plan(HEAD, FINETUNE), (result(0, accuracy=0.9), result(1, 8, 0.9)))
    assert equal.winner().candidate == 0
    note = won(equal)
    assert note.figures["margin_images"] == 0
    other = trains("warm-start", 0.862)
    runs = (result(0), result(1, 8, 0.9, seconds=80.0), result(2, 8, 0.9, seconds=90.0))
    assert Results(plan(HEAD, FINETUNE, other), runs).winner().candidate == 1  # its posterior is lower by less than half a point
    better = replace(other, accuracy=Estimate(0.92, 0.85, 0.96))
    assert Results(plan(HEAD, FINETUNE, better), runs).winner().candidate == 2


def crossed(candidate, epochs, validation, everything, **options):
    return replace(few(candidate, epochs, validation, validation.count("1") / len(validation)), crossed=everything, **options)


def test_of_cross_validated_runs_a_training_wins_by_more_than_one_standard_error():
    head = crossed(0, None, "11111111", "1110000000" * 4)
    better, equal = "1111100000" * 4, "1110011100" * 2 + "1110000000" * 2  # 8 images more; 6 more exceed their error too
    for correct, winner in ((better, 1), (equal, 1), ("1110000000" * 4, 0), ("-" * 10 + "1110000000" * 3, 0)):
        run = crossed(1, 8, "11111111", correct)
        assert Results(plan(HEAD, FINETUNE), (head, run)).winner().candidate == winner
    # 3 images more and 2 fewer differ by 1, which is within their error of 2.2.
    mixed = crossed(1, 8, "11111111", "1" * 3 + "0" * 7 + "0" * 2 + "1" * 4 + "0" * 4 + "1110000000" * 2)
    assert Results(plan(HEAD, FINETUNE), (head, mixed)).winner().candidate == 0


def test_a_training_is_cross_validated_only_if_validation_is_very_small_and_it_is_no_worse_there():
    head = crossed(0, None, "11110000", "10" * 20)
    assert Results(plan(HEAD, FINETUNE), (head, few(1, 8, "11110000", 0.5))).contender() is not None
    assert Results(plan(HEAD, FINETUNE), (head, few(1, 8, "11100000", 0.4))).contender() is None
    assert Results(plan(HEAD, FINETUNE), (head, replace(few(1, 8, "11110000", 0.5), improved=False))).contender() is None
    assert Results(plan(HEAD, FINETUNE), (head, replace(few(1, 8, "11110000", 0.5), epochs=3))).contender() is None
    many = [replace(run, correct=run.correct * 4, images=32.0) for run in (head, few(1, 8, "11110000", 0.5))]
    assert Results(plan(HEAD, FINETUNE), tuple(many)).contender() is None
    assert Results(plan(HEAD, FINETUNE), (replace(head, crossed=""), few(1, 8, "11110000", 0.5))).contender() is None
    assert Results(plan(FINETUNE), (few(0, 8, "1111", 0.5),)).contender() is None


def test_a_run_with_fewer_epochs_than_the_user_named_is_an_answer_only_if_there_is_no_other():
    fixed = trains("finetune", 0.86, shortens=False)
    short = result(0, 3, 0.9)
    assert Results(plan(fixed), (short,)).winner() is short
    assert Results(plan(fixed, HEAD), (short, result(1, accuracy=0.5))).winner().candidate == 1

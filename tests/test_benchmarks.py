"""Covers the benchmarks: they run, and their table says what was measured."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import multivariate_normal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks/ is not installed

from benchmarks import __main__ as bench
from benchmarks import regret, threads, throughput
from benchmarks._measure import ROOT, Row, alternate
from benchmarks.logme import evidence, logme
from benchmarks.plots import table
from benchmarks.runs import kept

from crossroads.advice.estimate import Estimate
from crossroads.advice.expectation import LAWS

RATE = Row("decode", "images/s", (90.0, 110.0, 100.0), "tf.data", (50.0, 44.0, 40.0))
SCORE = Row("accuracy", "", (0.5, 0.75))


def test_a_row_shows_medians_and_the_ratio_of_medians_with_its_spread():
    assert RATE.ratio() == (100 / 44, 1.8, 2.5)
    assert RATE.cells() == (
        "decode",
        "100 images/s (90.00..110)",
        "tf.data: 44.00 images/s (40.00..50.00)",
        "2.27 (1.80..2.50)",
        "3",
    )


def test_a_limit_is_compared_with_every_run_and_no_other_side_is_a_dash():
    assert Row("peak", "MB", (512.0, 256.0), "limit", (1024.0,)).ratio() == (0.375, 0.25, 0.5)
    assert SCORE.cells()[2:] == ("-", "-", "2")


def test_sides_take_turns_and_the_warm_up_does_not_count():
    calls = []

    def side(name):
        def sample():
            calls.append(name)
            return float(len(calls))

        return sample

    assert alternate(2, side("a"), side("b")) == [(3.0, 5.0), (4.0, 6.0)]
    assert calls == ["a", "b"] * 3


def test_the_page_keeps_rows_of_the_same_machine_and_no_others():
    empty = f"# Page\n{bench.BEGIN}\n{bench.END}\nafter\n"
    first = bench.updated(empty, [RATE, SCORE], "machine one")
    better = Row("accuracy", "", (0.9,))
    again = bench.updated(first, [better], "machine one")
    assert again.count("| decode | 100 images/s") == again.count("| accuracy | 0.9000 |") == 1
    assert "0.6250" not in again
    assert again.startswith("# Page\n")
    assert again.endswith("after\n")
    assert "decode" not in bench.updated(again, [better], "machine two")


def test_the_page_explains_every_benchmark_and_has_a_place_for_the_table():
    page = bench.PAGE.read_text(encoding="utf-8")
    assert bench.updated(page, [], "machine").count(bench.HEADER) == 1
    assert [b.name for b in bench.BENCHMARKS if f"\n`{b.name}`\n: " not in page] == []


def test_a_benchmark_without_its_data_is_listed_as_skipped(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench, "SHARED", tmp_path / "absent")
    assert bench.main(["gtsrb", "--quick"]) == 0
    assert "gtsrb: skipped, needs the shared data" in capsys.readouterr().out


def test_a_quick_run_prints_the_table_and_writes_every_sample(tmp_path, capsys):
    file = tmp_path / "bench.json"
    assert bench.main(["manifest-memory", "startup", "--quick", "--runs", "1", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    report = json.loads(file.read_text())
    rows = {row["name"]: row for row in report["rows"]}
    assert set(rows) == {
        "manifest-memory, 10,000 rows of CSV, peak",
        "manifest-memory, 10,000 rows of CSV, read",
        "manifest-memory, 10,000 rows of CSV, split",
        "startup, crossroads --help",
        "startup, import crossroads",
    }
    assert all(f"| {name} |" in printed for name in rows)
    assert 5 < rows["manifest-memory, 10,000 rows of CSV, peak"]["median_ours"] < 1024
    assert rows["startup, crossroads --help"]["theirs"][0] > 0
    assert report["machine"] in printed
    assert "measures nothing" in printed


@pytest.mark.parametrize("arguments", [["no-such"], ["startup", "--runs", "0"], ["--quick", "--update"]])
def test_arguments_that_make_no_sense_are_refused(arguments):
    with pytest.raises(SystemExit):
        bench.main(arguments)


def test_the_constants_of_the_advice_are_fitted_to_the_stored_runs():
    found = list(regret.outcomes(measure=False))
    assert len(found) >= 10
    penalties = regret.fitted_penalties(kept())
    assert {name: replace(law, epochs=penalties.get(name)) for name, law in regret.fitted_laws(found).items()} == LAWS


def test_the_page_on_the_four_cases_shows_what_was_measured():
    page = (ROOT / "docs" / "explanation" / "four-cases.md").read_text(encoding="utf-8")
    assert table() in page


def test_a_task_is_judged_with_constants_fitted_without_its_source():
    found = list(regret.outcomes(measure=False))
    one = next(outcome for outcome in found if outcome.task.startswith("CIFAR"))
    others = [
        replace(outcome, reached=dict.fromkeys(outcome.reached, 0.01)) if outcome.task.startswith("CIFAR") else outcome
        for outcome in found
    ]
    assert regret.fitted_laws(found, without=one.source) == regret.fitted_laws(others, without=one.source)
    assert regret.fitted_laws(found) != regret.fitted_laws(others)


def test_every_rule_chooses_among_what_was_run_and_the_race_has_the_least_regret():
    found = list(regret.outcomes(measure=False))
    rows = {row.name: row.ours[0] for row in regret.summary(found)}
    complete = sum(outcome.complete for outcome in found)
    rules = [rows[f"regret, {rule}, of {complete}, mean"] for rule in regret.RULES]
    assert all(choose(outcome) in outcome.reached for choose in regret.RULES.values() for outcome in found)
    assert 0 <= rows[f"regret, the race's rule, all run to their end, of {complete}, mean"] < min(rules)


def test_of_random_weights_only_what_freezes_them_or_leaves_them_out_is_advised():
    found = list(regret.outcomes(measure=False, random=True))
    assert {outcome.backbone for outcome in found} == {"random MobileNet"}
    assert {name for outcome in found for name in outcome.reached} == {"feature-extraction", "early-features", "from-scratch"}
    rows = {row.name: row.ours[0] for row in regret.with_random_weights(found, LAWS)}
    advice, extract = (
        rows[f"regret with random weights, {rule}, of {len(found)}, mean"] for rule in ("the advice", "always extract at the end")
    )
    assert 0 <= advice < extract


def test_over_backbones_a_rule_is_held_against_the_best_of_all():
    def outcome(backbone, logme, reached):
        return regret.Outcome("signs", backbone, {"logme": logme}, reached, reached, {})

    def first(strategy, value):
        return [regret.Expected(strategy, Estimate(value, 0, 1), 1.0)]

    found = [outcome("a", 0.3, {"feature-extraction": 0.7, "finetune": 0.9}), outcome("b", 0.5, {"feature-extraction": 0.8})]
    orders = [first("finetune", 0.85), first("feature-extraction", 0.8)]
    rows = {row.name.split(", ")[1]: row.ours[0] for row in regret.over_backbones(found, orders) if row.name.endswith("most")}
    assert rows == pytest.approx({"the advice": 0, "finetuning the backbone of the highest LogME": 10})
    assert list(regret.over_backbones(found[:1], orders[:1])) == []


def test_logme_is_the_greatest_evidence_of_a_linear_model():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 5))
    labels = (features @ rng.normal(size=5) > 0).astype(int)
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    for prior, noise in ((1.0, 1.0), (0.3, 5.0)):
        exact = multivariate_normal.logpdf(labels, np.zeros(40), np.eye(40) / noise + features @ features.T / prior) / 40
        assert evidence(left, singular**2, 5, labels * 1.0, prior, noise) == pytest.approx(exact)
    grid = np.logspace(-2, 3, 40)
    sides = (labels * 1.0, 1.0 - labels)
    best = [max(evidence(left, singular**2, 5, side, prior, noise) for prior in grid for noise in grid) for side in sides]
    assert logme(features, labels) == pytest.approx(np.mean(best), abs=0.01)
    assert logme(features, labels) >= np.mean(best)
    assert logme(features, labels) > logme(rng.normal(size=(40, 5)), labels)


def test_the_training_loop_is_measured():
    assert throughput.train_ours("quiz-cnn", 128) > 0


def test_process_starts_go_on_where_they_stopped_and_each_that_hangs_is_counted(tmp_path, monkeypatch):
    made = []

    def start(artifact, first, *, unprepared):
        made.append((first, unprepared))
        return ("hung" if len(made) == 2 else "finished"), "the stacks"

    monkeypatch.setattr(threads, "start", start)
    for until in (2, 3):
        ours, control = threads.Starts(tmp_path / "progress"), threads.Starts(tmp_path / "progress", unprepared=True)
        for number in range(until):
            ours.make(number, tmp_path)
        control.make(0, tmp_path)
    assert made == [(threads.FIRSTS[0], False), (threads.FIRSTS[1], False), (threads.FIRSTS[0], True), (threads.FIRSTS[2], False)]
    assert [ours.count("finished"), ours.count("hung"), control.count("finished")] == [2, 1, 1]


def test_an_advice_is_worse_without_what_it_measures():
    found = list(regret.outcomes(measure=False))
    whole = {row.name: row.ours[0] for row in regret.summary(found)}
    parts = {row.name: row.ours[0] for row in regret.by_parts(found)}
    assert len(parts) == 3 * len(regret.PARTS)
    errors = [parts[f"regret, mean error of an expectation without {part}, in log odds"] for part in regret.PARTS]
    assert whole["regret, mean error of an expectation, in log odds"] < min(errors)
    assert {
        base.kind for base in regret.bases_of(regret.without(regret.PARTS["short trainings"], found[0]).advice, "warm-start")
    } == {"probe"}

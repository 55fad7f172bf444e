"""Covers the parts of an error, the spelling of its option names, and suggestions for misspelt names."""

from crossroads.errors import CrossroadsError, DataError, RecipeError, did_you_mean, nearest, option


def test_a_message_gives_the_rule_the_value_and_the_hint():
    error = DataError("labels.csv line 14: label is unknown", code="unknown-label", received="'5O'", hint="did you mean '50'?")
    assert str(error) == "labels.csv line 14: label is unknown; received '5O'; did you mean '50'?"
    assert isinstance(error, CrossroadsError)
    assert (error.code, error.exit_code) == ("unknown-label", 2)


def test_missing_parts_are_left_out():
    assert str(DataError("there must be images")) == "there must be images"


def test_option_names_are_spelled_for_the_reader():
    error = RecipeError(f"{option('batch_size')} is too large", field="batch_size", hint=f"lower {option('batch_size')}")
    assert (str(error), error.rule, error.hint) == (
        "batch_size is too large; lower batch_size",
        "batch_size is too large",
        "lower batch_size",
    )
    assert error.text(lambda name: f"--{name.replace('_', '-')}") == "--batch-size is too large; lower --batch-size"


def test_names_from_a_file_keep_their_spelling():
    error = RecipeError(f"{option('batch_size')} is too large", code="out-of-range", field="batch_size").from_source("r.toml")
    assert error.text("--{}".format) == "r.toml: batch_size is too large"
    assert (error.source, error.code, error.field, type(error)) == ("r.toml", "out-of-range", "batch_size", RecipeError)


def test_nearest_finds_a_typing_error_and_nothing_else():
    assert nearest("epoch", ["epochs", "seed"]) == "epochs"
    assert nearest("zzz", ["epochs", "seed"]) is None


def test_did_you_mean_lists_all_names_if_none_is_close():
    assert did_you_mean("epoch", ["epochs", "seed"]) == "did you mean 'epochs'?"
    assert did_you_mean("zzz", ["epochs", "seed"]) == "use one of 'epochs', 'seed'"
    assert did_you_mean("zzz", [f"c{i}" for i in range(20)]).endswith(", …")

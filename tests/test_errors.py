from crossroads.errors import CrossroadsError, DataError, did_you_mean, nearest


def test_a_message_gives_the_rule_the_value_and_the_hint():
    error = DataError("labels.csv line 14: label is unknown", received="'5O'", hint="did you mean '50'?")
    assert str(error) == "labels.csv line 14: label is unknown; received '5O'; did you mean '50'?"
    assert isinstance(error, CrossroadsError)
    assert error.exit_code == 2


def test_what_is_not_known_is_left_out():
    assert str(DataError("there must be images")) == "there must be images"


def test_nearest_finds_a_slip_of_the_pen_and_nothing_else():
    assert nearest("epoch", ["epochs", "seed"]) == "epochs"
    assert nearest("zzz", ["epochs", "seed"]) is None


def test_did_you_mean_lists_all_where_nothing_is_close():
    assert did_you_mean("epoch", ["epochs", "seed"]) == "did you mean 'epochs'?"
    assert did_you_mean("zzz", ["epochs", "seed"]) == "use one of 'epochs', 'seed'"
    assert did_you_mean("zzz", [f"c{i}" for i in range(20)]).endswith(", …")

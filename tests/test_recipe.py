import re
import tomllib
import typing
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossroads.errors import RecipeError
from crossroads.recipe import Augmentation, Recipe

shares = st.floats(0, 0.4, allow_nan=False)
recipes = st.builds(
    Recipe,
    data=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    image_size=st.none() | st.integers(8, 512),
    epochs=st.none() | st.integers(1, 1000),
    validation=st.floats(0.01, 0.4),
    test_fraction=shares,
    seed=st.integers(0, 2**31 - 1),
    augment=st.sampled_from([None, True]),
    augmentation=st.none() | st.builds(Augmentation, shift=shares, rotation=st.floats(0, 180), flip=st.booleans()),
    optimizer=st.sampled_from([None, "adam", "adamw"]),
    learning_rate=st.none() | st.floats(1e-8, 10),
    class_weights=st.sampled_from(["none", "balanced"]),
)


@given(recipes)
def test_toml_gives_the_same_recipe_back(recipe):
    assert Recipe.from_mapping(tomllib.loads(recipe.to_toml())) == recipe


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "unknown key; received 'epoch'; did you mean 'epochs'?"),
        ({"augmentation": {"shft": 0.1}}, "unknown key; received 'augmentation.shft'; did you mean 'shift'?"),
        ({"epochs": "ten"}, "epochs must be a whole number; received 'ten'"),
        ({"seed": True}, "seed must be a whole number; received True"),
        ({"augment": 1}, "augment must be true or false; received 1"),
        ({"augmentation": 1}, "augmentation must be a table; received 1"),
        ({"optimizer": "adm"}, "optimizer must be one of adam, adamw; received 'adm'; did you mean 'adam'?"),
        ({"epochs": 0}, "epochs must lie in [1, 100000]; received 0"),
        ({"validation": 0.0}, "validation must lie in (0, 0.9]; received 0.0"),
        ({"validation": float("nan")}, "validation must lie in (0, 0.9]; received nan"),
        ({"augmentation": {"shift": 2}}, "augmentation.shift must lie in [0, 0.5]; received 2.0"),
        ({"optimizer": "adam", "weight_decay": 0.1}, "weight_decay does nothing with optimizer 'adam'"),
        ({"augment": False, "augmentation": {"shift": 0.1}}, "augmentation does nothing with augment = false"),
    ],
)
def test_a_wrong_recipe_is_told_with_its_hint(values, message):
    with pytest.raises(RecipeError) as caught:
        Recipe.from_mapping(values)
    assert message in str(caught.value)


def test_a_whole_number_may_stand_for_a_number():
    assert Recipe.from_mapping({"learning_rate": 1}).learning_rate == 1.0


def test_a_cut_may_be_a_number():
    assert Recipe.from_mapping({"cut": 0.6, "freeze_to": 3}, "x") == Recipe(cut="0.6", freeze_to="3")
    assert Recipe(cut=np.float64(0.5)).cut == "0.5"
    with pytest.raises(RecipeError, match="cut must be a string"):
        Recipe(cut=True)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("5m", 300), ("1.5h", 5400)])
def test_a_budget_is_written_as_people_do(text, seconds):
    assert Recipe.from_mapping({"budget": text}).budget == Recipe(budget=text).budget == seconds


@pytest.mark.parametrize("text", ["", "m", "-5m", "1_0m", " 5 m", "0", "soon", "5d", "inf", "nan"])
def test_a_budget_that_is_no_time_is_told(text):
    with pytest.raises(RecipeError, match="write it as 90s, 5m or 1h"):
        Recipe(budget=text)


def test_a_mistake_in_a_file_names_the_file(tmp_path):
    for text, said in (('budget = "soon"', "budget must be a time above 0"), ("epochs = 0", r"epochs must lie in \[1")):
        (tmp_path / "r.toml").write_text(text)
        with pytest.raises(RecipeError, match=rf"r\.toml: {said}"):
            Recipe.from_toml(tmp_path / "r.toml")


def test_types_are_checked_however_a_recipe_is_made():
    with pytest.raises(RecipeError, match="epochs must be a whole number; received '5'"):
        Recipe(epochs="5")
    assert Recipe(epochs=np.int64(5), validation=np.float32(0.5)) == Recipe(epochs=5, validation=0.5)
    assert type(Recipe(epochs=np.int64(5)).epochs) is int


def test_a_file_that_is_missing_or_not_toml_is_told_by_name(tmp_path):
    with pytest.raises(RecipeError, match="must be a readable file"):
        Recipe.from_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("epochs = = 3")
    with pytest.raises(RecipeError, match=r"bad\.toml must be TOML"):
        Recipe.from_toml(tmp_path / "bad.toml")


def test_with_options_ignores_what_was_not_given():
    assert Recipe(epochs=3).with_options(epochs=None, seed=4) == Recipe(epochs=3, seed=4)


def _is_number(record, name):
    hint = typing.get_type_hints(record)[name]
    return bool({int, float} & {hint, *typing.get_args(hint)})


REFERENCE = Path(__file__).parents[1] / "docs" / "reference" / "recipe.md"
NUMBERS = {(record, one.name) for record in (Recipe, Augmentation) for one in fields(record) if _is_number(record, one.name)}


def ranges_of_docstrings():
    """(record, field, bracket, low, high) as the docstrings state them."""
    for record in (Recipe, Augmentation):
        for name, text in re.findall(
            r"^        (\w+): (.*?)(?=^        \w+: |\Z)", record.__doc__ + "\n", re.MULTILINE | re.DOTALL
        ):
            for bracket, low, high in re.findall(r"in ([\[(])([\d.]+),\s+([\d.]+)\]", text):
                yield record, name, bracket, float(low), float(high)


def ranges_of_the_reference():
    """The same as the reference of the recipe states them."""
    for line in REFERENCE.read_text(encoding="utf-8").splitlines():
        cells = line.replace(",", "").split(" | ")
        if found := re.match(r"\| `(\w+)`", line):
            for cell in cells[1:3]:
                if stated := re.search(r"in ([\[(])([\d.]+) ([\d.]+)\]", cell):
                    yield Recipe, found[1], stated[1], float(stated[2]), float(stated[3])
                elif stated := re.match(r"(?:integer )?([\d.]+) to ([\d.]+)$", cell):
                    yield Recipe if "integer" in cell else Augmentation, found[1], "[", float(stated[1]), float(stated[2])


@pytest.mark.parametrize("source", [ranges_of_docstrings, ranges_of_the_reference])
def test_a_range_is_stated_for_every_number(source):
    assert {(record, name) for record, name, *_ in source()} == NUMBERS


@pytest.mark.parametrize(
    ("record", "name", "bracket", "low", "high"),
    [*ranges_of_docstrings(), *ranges_of_the_reference()],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_what_is_accepted_is_the_range_that_is_stated(record, name, bracket, low, high):
    whole = int in typing.get_args(typing.get_type_hints(record)[name]) or typing.get_type_hints(record)[name] is int
    number, step = (int, 1) if whole else (float, 1e-9 * max(high, 1))
    for value in (high, low if bracket == "[" else low + step):
        assert getattr(record(**{name: number(value)}), name) == value
    for value in (high + step, low - step, *([low] if bracket == "(" else [])):
        with pytest.raises(RecipeError, match="must lie in"):
            record(**{name: number(value)})

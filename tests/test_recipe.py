"""Covers what a recipe accepts and refuses, and what is derived from its fields."""

import re
import runpy
import tomllib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossroads.errors import RecipeError
from crossroads.recipe import GROUPS, Augmentation, Recipe
from crossroads.recipe.fields import RENAMED, options
from docs_pages import ROOT
from refusals import refused

fractions = st.floats(0, 0.4, allow_nan=False)
recipes = st.builds(
    Recipe,
    data=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    image_size=st.none() | st.integers(8, 512),
    epochs=st.none() | st.integers(1, 1000),
    validation=st.floats(0.01, 0.4),
    test_fraction=fractions,
    seed=st.integers(0, 2**31 - 1),
    augment=st.sampled_from([None, True]),
    augmentation=st.none() | st.builds(Augmentation, shift=fractions, rotation=st.floats(0, 180), flip=st.booleans()),
    optimizer=st.sampled_from([None, "adam", "adamw"]),
    learning_rate=st.none() | st.floats(1e-8, 10),
    class_weights=st.sampled_from(["none", "balanced"]),
)


@given(recipes)
def test_toml_round_trip(recipe):
    assert Recipe.from_mapping(tomllib.loads(recipe.to_toml())) == recipe


@pytest.mark.parametrize("text", ["\x7f", "\x00", "é", "\U0001f6d1", 'a"b', "a\\b", "a\nb"])
def test_toml_holds_any_character(text):
    assert Recipe.from_mapping(tomllib.loads(Recipe(data=text).to_toml())).data == text


@pytest.mark.parametrize(
    ("values", "code", "facts"),
    [
        ({"epoch": 3}, "unknown-option", {"received": "'epoch'", "hint": "did you mean 'epochs'?"}),
        (
            {"augmentation": {"shft": 0.1}},
            "unknown-option",
            {"received": "'augmentation.shft'", "hint": "did you mean 'shift'?"},
        ),
        ({"epochs": "ten"}, "wrong-type", {"field": "epochs", "received": "'ten'"}),
        ({"seed": True}, "wrong-type", {"field": "seed", "received": "True"}),
        ({"augment": 1}, "wrong-type", {"field": "augment"}),
        ({"augmentation": 1}, "wrong-type", {"field": "augmentation"}),
        ({"cut": True}, "wrong-type", {"field": "cut"}),
        ({"optimizer": "adm"}, "unknown-choice", {"field": "optimizer", "hint": "did you mean 'adam'?"}),
        ({"epochs": 0}, "out-of-range", {"field": "epochs", "received": 0}),
        ({"validation": float("nan")}, "out-of-range", {"field": "validation"}),
        ({"augmentation": {"shift": 2}}, "out-of-range", {"field": "augmentation.shift", "received": 2.0}),
        ({"optimizer": "adam", "weight_decay": 0.1}, "option-without-effect", {"field": "weight_decay"}),
        ({"augment": False, "augmentation": {"shift": 0.1}}, "option-without-effect", {"field": "augmentation"}),
    ],
)
def test_a_wrong_recipe_is_refused(values, code, facts):
    with refused(code, RecipeError, **facts):
        Recipe.from_mapping(values)


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_renamed_option_is_refused_with_its_new_name(old, new):
    assert new in options(Recipe)
    with refused("renamed-option", RecipeError, field=old, hint=f"use {new}"):
        Recipe.from_mapping({old: 0.1})


def test_a_cut_may_be_a_number():
    assert Recipe.from_mapping({"cut": 0.6, "freeze_to": 3}) == Recipe(cut="0.6", freeze_to="3")
    assert Recipe(cut=np.float64(0.5)).cut == "0.5"


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("5m", 300), ("1.5h", 5400)])
def test_a_budget_may_have_a_unit(text, seconds):
    assert Recipe.from_mapping({"budget": text}).budget == Recipe(budget=text).budget == seconds


@pytest.mark.parametrize("text", ["", "m", "-5m", "1_0m", " 5 m", "soon", "5d", "inf", "nan"])
def test_a_budget_that_is_not_a_time_is_refused(text):
    with refused("wrong-type", RecipeError, field="budget"):
        Recipe(budget=text)


def test_numbers_of_other_types_are_converted():
    assert Recipe.from_mapping({"learning_rate": 1}).learning_rate == 1.0
    assert Recipe(epochs=np.int64(5), validation=np.float32(0.5)) == Recipe(epochs=5, validation=0.5)
    assert type(Recipe(epochs=np.int64(5)).epochs) is int


@pytest.mark.parametrize(
    ("text", "code"), [("epochs = 0", "out-of-range"), ("epochs = 'x'", "wrong-type"), ("epoch = 1", "unknown-option")]
)
def test_an_error_in_a_file_names_the_file_and_the_field_as_written(tmp_path, text, code):
    path = tmp_path / "r.toml"
    path.write_text(text)
    with refused(code, RecipeError, source=str(path)) as caught:
        Recipe.from_toml(path)
    assert "--" not in caught.value.text("--{}".format)


def test_a_file_that_is_missing_or_not_toml_is_named(tmp_path):
    with refused("recipe-unreadable", RecipeError, field="recipe") as caught:
        Recipe.from_toml(tmp_path / "none.toml")
    assert "none.toml" in caught.value.received
    (tmp_path / "bad.toml").write_text("epochs = = 3")
    with refused("recipe-not-toml", RecipeError) as caught:
        Recipe.from_toml(tmp_path / "bad.toml")
    assert "bad.toml" in caught.value.rule


def test_with_options_ignores_what_was_not_given():
    assert Recipe(epochs=3).with_options(epochs=None, seed=4) == Recipe(epochs=3, seed=4)


EVERY = [(record, option) for record in (Recipe, Augmentation) for option in options(record).values()]
RANGES = [(record, option) for record, option in EVERY if option.range is not None]


@pytest.mark.parametrize(("record", "option"), EVERY, ids=lambda value: getattr(value, "path", ""))
def test_every_option_is_described(record, option):
    assert option.group in GROUPS
    assert option.help.endswith(".")
    assert f"        {option.name}: {option.help}" in record.__doc__
    assert (option.range is not None) == (option.kind in (int, float))
    assert option.default is not None or option.optional


@pytest.mark.parametrize(("record", "option"), RANGES, ids=lambda value: getattr(value, "path", ""))
def test_the_ends_of_a_range(record, option):
    low, high, step = option.range.low, option.range.high, 1 if option.kind is int else 1e-9 * max(option.range.high, 1)
    for value in (high, low + step if option.range.above else low):
        assert getattr(record(**{option.name: option.kind(value)}), option.name) == value
    for value in (high + step, low - step, *([low] if option.range.above else [])):
        with refused("out-of-range", RecipeError, field=option.path):
            record(**{option.name: option.kind(value)})


def test_the_reference_page_has_the_tables_of_the_fields():
    tables = runpy.run_path(str(ROOT / "docs" / "generate.py"))["recipe_tables"]()
    page = (ROOT / "docs" / "reference" / "recipe.md").read_text(encoding="utf-8")
    for group, table in tables.items():
        section = re.search(rf"^### {group}\n.*?(?=^#|\Z)", page, re.MULTILINE | re.DOTALL)
        assert table in section[0], "run `python docs/generate.py`"

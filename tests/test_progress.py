"""What a watcher must be, and what a relay keeps."""

import pytest

import crossroads
from crossroads.errors import RecipeError
from crossroads.progress import Relay, Silent, StopTraining, require_watcher
from watchers import Notes


class Deaf:
    """Lacks `step` and `epoch`."""

    def note(self, text): ...

    def warning(self, text): ...

    def progress(self, stage, done, total): ...


@pytest.mark.parametrize(
    ("watcher", "received"),
    [(Deaf(), "a Deaf without step, epoch"), (print, "without note"), (Silent, "the class Silent"), (Deaf, "without step, epoch")],
)
def test_what_is_no_watcher_is_refused_with_what_it_lacks(watcher, received):
    with pytest.raises(RecipeError, match=received):
        require_watcher(watcher)


@pytest.mark.parametrize("call", ["fit", "advise", "evaluate", "audit"])
def test_every_call_refuses_it_before_it_does_anything(call, tmp_path):
    arguments = {
        "fit": (crossroads.fit, ("nowhere",), {"out": tmp_path / "run"}),
        "advise": (crossroads.advise, ("nowhere",), {}),
        "evaluate": (crossroads.evaluate, ("nowhere", "nowhere"), {}),
        "audit": (crossroads.audit, ("nowhere",), {}),
    }
    function, positional, named = arguments[call]
    with pytest.raises(RecipeError, match="watcher"):
        function(*positional, **named, watcher=Deaf())
    assert list(tmp_path.iterdir()) == []


def test_a_class_of_ones_own_without_a_common_base_is_a_watcher():
    class Mine(Deaf):
        def step(self, epoch, done, total): ...

        def epoch(self, record, total): ...

    require_watcher(Mine())


def test_one_that_only_overrides_note_receives_warnings_too():
    watcher = Notes()
    watcher.warning("1 image was refused")
    assert watcher.said == ["1 image was refused"]


def test_a_relay_keeps_each_warning_once_and_no_notes():
    heard, notes = Notes(), []
    relay = Relay(heard, after_note=notes.append)
    for text in ("one", "two", "one"):
        relay.warning(text)
    relay.note("trying")
    assert relay.warnings == ("one", "two")
    assert heard.said == notes == ["one", "two", "trying"]


def test_what_a_watcher_raised_is_raised_again_whatever_was_made_of_it():
    class Stops(Silent):
        def step(self, epoch, done, total):
            raise MemoryError("the user's own")

    relay = Relay(Stops())
    relay.note("before")
    for again in (lambda: relay.step(1, 1, 2), relay.raise_again, lambda: relay.note("after it was swallowed")):
        with pytest.raises(MemoryError, match="the user's own"):
            again()


def test_enough_is_not_raised_again():
    class Stops(Silent):
        def note(self, text):
            raise StopTraining

    relay = Relay(Stops())
    with pytest.raises(StopTraining):
        relay.note("")
    relay.raise_again()

"""Reports a race as a watcher receives it."""

from crossroads.progress import EpochRecord, Note, Uncounted


def facts(strategy, **others):
    return {"strategy": strategy, "backbone": "mobilenet", **others}


def raced(activity):
    """Reports a race: a first answer, a better candidate, one that runs out of time, and one that is not tried."""
    activity.note(Note("", "artifact-saved", **facts("feature-extraction", accuracy=0.9, seconds=8.0)))
    expected = dict.fromkeys((f"{name} with mobilenet" for name in ("feature-extraction", "finetune", "from-scratch")), 0.5)
    activity.note(Note("", "race-started", expected=expected | {"finetune with resnet50": 0.6}))
    run(activity, "finetune", 0.93)
    activity.note(Note("", "artifact-saved", **facts("finetune", accuracy=0.93, seconds=20.0)))
    activity.end(Uncounted("trying finetune"))
    activity.note(Note("", "run-started", **facts("from-scratch", epochs=5)))
    activity.begin(Uncounted("trying from-scratch"), 0, 1)
    activity.note(Note("", "run-out-of-time", **facts("from-scratch")))
    activity.end(Uncounted("trying from-scratch"))
    skipped = [{"strategy": "finetune", "backbone": "resnet50"}]
    activity.note(Note("", "candidates-skipped", candidates=skipped))


def run(activity, strategy, accuracy):
    activity.note(Note("", "run-started", **facts(strategy, epochs=2)))
    activity.begin(Uncounted(f"trying {strategy}"), 0, 1)
    for epoch, reached in ((1, accuracy), (2, accuracy - 0.1)):
        activity.epoch(EpochRecord("tune", epoch, 1.0, 0.001, 0.5, 0.4, reached), 2)

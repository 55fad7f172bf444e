"""Shows what was run: the data, the recipe, the versions and the digests, and the command that repeats it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from crossroads.data.findings import Finding
from crossroads.report.facts import example_rows
from crossroads.report.html.figures import data_table, definitions
from crossroads.report.html.gallery import Pictures
from crossroads.report.html.markup import Content, Html, element
from crossroads.report.subject import Subject

SHORT = 16
"""Hexadecimal digits of a digest that are shown."""


def repeat_command(subject: Subject) -> str:
    """Returns the command that repeats the run."""
    recipe = shlex.quote(str(subject.manifest.folder / "recipe.toml"))
    data = "" if subject.manifest.facts["recipe"].get("data") else "DATA "
    return f"crossroads fit {data}--recipe {recipe} --out NEW"


def data_facts(subject: Subject, pictures: Pictures) -> Iterator[Html]:
    """Yields the images by split, the findings of an audit, the notes of the run, and the images that could not be read."""
    facts = subject.manifest.facts["data"]
    splits = ", ".join(f"{split['n']:,} {name}" for name, split in facts["splits"].items())
    pairs: list[tuple[str, Content]] = [
        ("images from", _breakable(str(facts["origin"]))),
        ("images", splits),
        ("classes", len(subject.classes)),
        ("fitted on", " and ".join(facts.get("fitted_on", ("train",)))),
    ]
    if subject.origin:
        pairs.insert(0, ("scored images", [f"{subject.scores['n']:,} from ", _breakable(subject.origin)]))
    yield definitions(pairs)
    if subject.findings is not None:
        yield element("h3", "What an audit of the scored images found")
        found = [_finding(finding, subject, pictures) for finding in subject.findings]
        yield element("ul", found, class_="findings") if found else element("p", "No problems were found.")
    notes = dict.fromkeys([*map(str, subject.scores.get("warnings", ())), *map(str, subject.metrics.get("warnings", ()))])
    if notes:
        yield element("h3", "Notes")
        yield element("ul", [element("li", note) for note in notes], class_="notes")
    refused = subject.metrics.get("refused") or []
    if refused:
        yield element("h3", "Images that could not be read")
        yield data_table(("image", "split", "reason"), [(row["name"], row["split"], row["reason"]) for row in refused[:50]])
        if len(refused) > 50:
            yield element("p", f"… and {len(refused) - 50:,} more in metrics.json.", class_="quiet")
    if subject.findings is None:
        audit = ["For duplicates, wrong labels and blank images, run ", element("code", "crossroads audit DATA"), "."]
        yield element("p", audit, class_="quiet")


def what_was_run(subject: Subject) -> Iterator[Html]:
    """Yields the command, the facts, the recipe and the digests."""
    facts, metrics = subject.manifest.facts, subject.metrics
    yield element("p", "This command repeats the run:")
    yield element("pre", element("code", repeat_command(subject)), tabindex="0")
    memory = metrics.get("peak_memory_mb")
    pairs: list[tuple[str, Content]] = [
        ("backbone", subject.manifest.backbone),
        ("strategy", subject.manifest.strategy),
        ("weights", _weights(facts.get("pretrained"))),
        ("cut", (metrics.get("cut") or {}).get("name", "–")),
        ("input", str(facts["preprocessing"]["input"])),
        ("time", f"{metrics['seconds']:,.1f} s"),
        ("peak memory", "unknown" if memory is None else f"{memory:,.0f} MB"),
        (
            "versions",
            ", ".join(f"{name} {version}" for name, version in {"crossroads": facts["crossroads"], **_versions(facts)}.items()),
        ),
    ]
    yield definitions(pairs)
    recipe = (subject.manifest.folder / "recipe.toml").read_text(encoding="utf-8")
    yield element("details", element("summary", "The recipe"), element("pre", element("code", recipe), tabindex="0"))
    yield element("details", element("summary", "Digests"), data_table(("what", "digest (BLAKE2b)"), _digests(subject)))


def _finding(finding: Finding, subject: Subject, pictures: Pictures) -> Html:
    """Returns a finding with its examples: their pictures where there are some, otherwise their names."""
    rows = [] if subject.predictions is None else example_rows(finding, subject.predictions)
    shown = pictures.small(rows)
    examples = shown or element("p", "; ".join(finding.examples), class_="quiet")
    tag = element("span", finding.severity, class_=f"tag {finding.severity}")
    return element("li", element("p", tag, finding.summary), examples, element("p", f"Hint: {finding.hint}", class_="quiet"))


def _breakable(path: str) -> Content:
    """Returns a path that may be broken after its slashes."""
    first, *rest = path.split("/")
    return [first, [["/", element("wbr"), part] for part in rest]]


def _versions(facts: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): str(version) for name, version in facts["versions"].items()}


def _weights(pretrained: Mapping[str, Any] | None) -> str:
    if pretrained is None:
        return "random"
    licence = pretrained.get("licence")
    return str(pretrained.get("from", "unknown")) + (f" ({licence})" if licence else "")


def _digests(subject: Subject) -> Iterator[tuple[str, Content]]:
    facts = subject.manifest.facts
    yield "data", _short(facts["data"]["digest"])
    for name, split in facts["data"]["splits"].items():
        if "digest" in split:
            yield f"{name} images and labels", _short(split["digest"])
    test = subject.metrics.get("test") or {}
    if test.get("digest"):
        yield "test images and labels", _short(test["digest"])
    yield "weights", _short(facts["weights"])
    for name, record in subject.manifest.files.items():
        yield name, _short(record["blake2b"])


def _short(digest: object) -> Html:
    text = str(digest)
    return element("code", text[:SHORT], title=text)

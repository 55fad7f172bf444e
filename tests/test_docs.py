"""Runs every command and snippet of README.md and docs/, and checks that every recipe is valid."""

import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

import crossroads
from crossroads.advice import baselines, warm_start
from docs_pages import ROOT, Page, blocks, commands, in_process, same_structure
from serve_running import running

DOCS = ROOT / "docs"
README = ROOT / "README.md"
TUTORIAL = DOCS / "tutorial" / "first-classifier.md"
PHOTOGRAPHS = DOCS / "tutorial" / "photographs.md"
SERVE_PAGE = DOCS / "how-to" / "serve-a-model.md"
JAX_PAGE = DOCS / "how-to" / "jax.md"
# Its commands take an hour; `make bench` runs them.
BENCHMARKS = DOCS / "benchmarks.md"
TEXTS = sorted({README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")})
# The tutorial and README.md fit the same network to the same photographs. One of them does.
TRAINING = "crossroads fit photos --strategy feature-extraction --out runs/flowers"
# Their commands train networks for more than five seconds in all.
SLOW = (
    "explanation/repeatable-runs.md",
    "how-to/add-a-class.md",
    "how-to/advise.md",
    "how-to/backbone.md",
    "how-to/cache.md",
    "how-to/deploy.md",
    "how-to/finetune.md",
    "how-to/from-keras-1.md",
    "how-to/improve-accuracy.md",
    "how-to/scikit-learn.md",
    "how-to/track-runs.md",
    "how-to/unequal-classes.md",
    "how-to/weights.md",
    "tutorial/pretrained.md",
)
RUN_AFTER_TUTORIAL = [
    pytest.param(page, id=str(page.relative_to(ROOT)), marks=[pytest.mark.slow] * (page in [DOCS / name for name in SLOW]))
    for page in TEXTS
    if page not in (README, TUTORIAL, PHOTOGRAPHS, JAX_PAGE, SERVE_PAGE, BENCHMARKS)
]


def run(page, folder, patch, known=()):
    """Runs one page in `folder`, with its own home and caches and a terminal of 80 columns. Returns the outputs of its commands."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    patch.chdir(folder)
    patch.setenv("HOME", str(home))
    patch.setenv("CROSSROADS_CACHE", str(home / "features"))
    patch.setattr(baselines, "SHORT_EPOCHS", (2, 2))  # short trainings for evidence, because no figure of a page is compared
    patch.setattr(warm_start, "SECONDS", 0.3)
    for name in ("CROSSROADS_CACHE_LIMIT", "CROSSROADS_WEIGHTS_URL", "KERAS_HOME"):
        patch.delenv(name, raising=False)
    patch.setenv("COLUMNS", "80")
    running = Page(page, dict(known))
    running.run()
    for command in running.skipped:
        print(f"not run: {command}")
    return running.outputs


@pytest.fixture(scope="session")
def tutorial(tmp_path_factory):
    """Runs the first tutorial. Returns its folder and the outputs of its commands."""
    folder = tmp_path_factory.mktemp("tutorial")
    with pytest.MonkeyPatch.context() as patch:
        return folder, run(TUTORIAL, folder, patch)


@pytest.fixture(scope="session")
def after_tutorial(tutorial):
    """Returns the folder of a reader after the first tutorial: `digits/`, `more-digits/` and the artifact `runs/digits`."""
    return tutorial[0]


def test_the_first_tutorial_leaves_an_artifact(after_tutorial):
    assert crossroads.load(after_tutorial / "runs" / "digits").classes == tuple("0123456789")


@pytest.mark.parametrize("page", RUN_AFTER_TUTORIAL)
def test_page_does_what_it_says(page, after_tutorial, tmp_path, monkeypatch):
    if "digits" in page.read_text(encoding="utf-8"):
        shutil.copytree(after_tutorial, tmp_path, dirs_exist_ok=True)
    run(page, tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def photographs(shared_data, tmp_path_factory):
    """Runs the tutorial on photographs, on the real ones. Returns its folder and the outputs of its commands."""
    folder = tmp_path_factory.mktemp("photographs")
    with tarfile.open(shared_data / "flowers5.tar") as archive:
        archive.extractall(folder, filter="data")
    (folder / "flowers5").rename(folder / "flower_photos")
    with pytest.MonkeyPatch.context() as patch:
        return folder, run(PHOTOGRAPHS, folder, patch)


def test_the_tutorial_on_photographs_leaves_an_artifact(photographs):
    assert crossroads.load(photographs[0] / "runs" / "flowers").classes == ("daisy", "dandelion", "rose", "sunflower", "tulip")


def test_the_readme_does_what_it_says(photographs, tmp_path, monkeypatch):
    folder, outputs = photographs
    for name in ("photos", "new-photos", "runs"):
        shutil.copytree(folder / name, tmp_path / name)
    assert TRAINING not in run(README, tmp_path, monkeypatch, known={TRAINING: outputs[TRAINING]})


def test_the_page_on_the_server_does_what_it_says(after_tutorial, tmp_path, monkeypatch):
    shutil.copytree(after_tutorial, tmp_path, dirs_exist_ok=True)
    with running(tmp_path / "runs" / "digits") as server:
        page = tmp_path / "page.md"
        page.write_text(SERVE_PAGE.read_text(encoding="utf-8").replace("http://127.0.0.1:8000", server.address), encoding="utf-8")
        run(page, tmp_path, monkeypatch)
        if shutil.which("node"):
            script = f"""import {{ classify }} from "{tmp_path}/classify.mjs"; import {{ openAsBlob }} from "node:fs";
            console.log((await classify(await openAsBlob("more-digits/8/1511.png")))[0].label);"""
            done = subprocess.run(["node", "--input-type=module", "-e", script], capture_output=True, text=True, check=False)
            assert done.stdout.strip() == "8", done.stderr


@pytest.mark.core
@pytest.mark.skipif(os.environ.get("KERAS_BACKEND") != "jax", reason="run by `make test-jax`")
def test_the_page_on_jax_does_what_it_says(tmp_path, monkeypatch):
    run(JAX_PAGE, tmp_path, monkeypatch)


def test_the_command_line_reference_is_what_help_prints(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    page = (DOCS / "reference" / "command-line.md").read_text(encoding="utf-8")
    shown = {command.text: command.shown for block in blocks(page) if block.language == "console" for command in commands(block)}
    texts = ["crossroads --help"]
    for text in texts:  # the list grows, because a group of commands lists further ones
        status, output = in_process(text)
        assert status == 0
        assert shown[text].strip() == output.strip(), text
        lines = output.partition("Commands:\n")[2].splitlines()
        texts += [text.replace("--help", f"{line.split()[0]} --help") for line in lines]
    assert len(texts) > 10


def test_the_python_reference_lists_every_public_name():
    text = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    assert set(re.findall(r"auto\w+:: crossroads\.(\w+)", text)) == set(crossroads.__all__)


class TestComparison:
    """Only numbers may differ between the page and the output."""

    @pytest.mark.parametrize(
        ("shown", "real"),
        [
            ("accuracy: 0.9944", "accuracy: 0.9000\n"),
            ("a\n…\nz", "a\nb\nc\nz\n"),
            ("a\n…\nz", "a\nz\n"),
            ("digest: …", "digest: 0f3c\n"),
            ("name   n\n----  --", "name  n\n-----  --\n"),
            ("", "\n"),
            ("error: a long\n  line", "error: a long line\n"),
            ("such as:\n  this", "such as:\n  this\n"),
        ],
    )
    def test_alike(self, shown, real):
        assert same_structure(shown, real)

    @pytest.mark.parametrize(
        ("shown", "real"),
        [
            ("accuracy: 0.9944", "loss: 0.9944\n"),
            ("a", "a\nb\n"),
            ("a\nb", "a\n"),
            ("a\nb", "a b\n"),
            ("", "a line that the page does not show\n"),
            ("a line that is not printed", ""),
            ("a\n…\nz", "a\nb\n"),
        ],
    )
    def test_different(self, shown, real):
        assert not same_structure(shown, real)


def test_a_page_that_promises_another_output_fails(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = Path(tmp_path / "page.md")
    page.write_text("```python\nprint('this')\n```\n\n```text\nthat\n```\n")
    with pytest.raises(AssertionError, match="line 6 shows"):
        Page(page).run()


def test_a_page_whose_command_fails_fails(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = Path(tmp_path / "page.md")
    page.write_text("```console\n$ crossroads predict nowhere image.png\nnowhere\n```\n")
    with pytest.raises(AssertionError, match="exits with 2"):
        Page(page).run()

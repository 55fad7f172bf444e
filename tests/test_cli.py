"""Covers the commands: their output for people, their JSON, and their errors."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from crossroads import cli
from crossroads.advice import baselines
from crossroads.advice.estimate import Estimate
from crossroads.api import audit
from crossroads.plain import to_plain
from crossroads.race.records import RaceReport, RunRow
from crossroads.report.console import print_run
from crossroads.run.finish import Run
from pictures import folder_of, stripes

QUICK = (
    *("--strategy", "from-scratch", "--backbone", "quiz-cnn", "--image-size", "16", "--epochs", "2", "--batch-size", "16"),
    *("--validation", "0.2", "--test-fraction", "0.2"),
)
COMMANDS = ("audit", "advise", "fit", "evaluate", "predict", "explain", "embed", "export", "backbones", "demo")


@pytest.fixture
def crossroads(monkeypatch, capsys):
    """Runs one command in this process. Returns exit code, standard output and standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["crossroads", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as done:
            code = done.code or 0
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    images, labels = stripes(60)
    return folder_of(tmp_path_factory.mktemp("stripes"), images, labels)


@pytest.fixture(scope="module")
def artifact(data, tmp_path_factory):
    from crossroads import fit

    out = tmp_path_factory.mktemp("run") / "run"
    options = {"strategy": "from-scratch", "backbone": "quiz-cnn", "image_size": 16, "epochs": 6, "batch_size": 16}
    fit(data, out=out, validation=0.2, test_fraction=0.2, **options)
    return out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_text_has_an_example(crossroads, command):
    code, out, _ = crossroads(command, "--help")
    assert code == 0
    assert f"crossroads {command}" in out.split("Example:")[1]


def test_version(crossroads):
    code, out, _ = crossroads("--version")
    assert code == 0
    assert out.startswith("crossroads 0.")


def test_fit_prints_each_epoch_and_the_scores(crossroads, data, tmp_path):
    code, out, err = crossroads("fit", data, "--out", tmp_path / "run", *QUICK)
    assert code == 0
    lines = out.splitlines()
    assert sum(line.startswith("epoch ") for line in lines) == 2
    assert "validation loss" in next(line for line in lines if line.startswith("epoch 1/2"))
    assert any(line.startswith("test_accuracy: ") for line in lines)
    assert f"artifact: {tmp_path / 'run'}" in lines
    assert err == ""


def test_the_runs_of_a_race_are_shown_before_the_scores(capsys, tmp_path):
    def run_row(name, epochs, reached, failed=None, *, won=False, improved=True):
        usual, whole, expected = (None if epochs is None else 5), epochs in (None, 5), Estimate(0.8, 0.7, 0.9)
        return RunRow(name, "mobilenet", epochs, usual, whole, 12.3, expected, reached, None, None, failed, won, 8.0, improved)

    runs = (
        run_row("early-features", None, 0.75),
        run_row("finetune", 0, None, "no room"),
        run_row("warm-start", 2, 0.875, won=True),
        run_row("from-scratch", 5, 0.5),
        run_row("finetune", 5, 0.75, improved=False),
    )
    phases = [{"name": "train", "epochs": 2, "best_epoch": 2}]
    headline = {"accuracy": 0.9, "interval": [0.8, 0.95], "images": 40, "source": "test"}
    scores = {
        "headline": headline,
        "validation": None,
        "test": None,
        "peak_memory_mb": None,
        "backbone": "mobilenet",
        "strategy": "warm-start",
    }
    metrics = scores | {
        "epochs": 2,
        "best_epoch": 2,
        "seconds": 1.0,
        "phases": phases,
        "choice": {"text": "it won because", "recommended": "finetune"},
        "race": to_plain(RaceReport(60.0, 50.0, False, runs, "")),
    }
    print_run(Run(tmp_path, metrics))
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert shown[0] == ["run", "backbone", "epochs", "expected", "validation", "images", "seconds"]
    assert shown[2:7] == [
        ["early-features", "mobilenet", "-", "0.800", "0.7500", "8", "12"],
        ["finetune", "mobilenet", "0", "of", "5", "-", "-", "-", "12", "no", "room"],
        ["warm-start", "mobilenet", "2", "of", "5", "0.800", "0.8750", "8", "12", "won"],
        ["from-scratch", "mobilenet", "5", "0.800", "0.5000", "8", "12"],
        ["finetune", "mobilenet", "5", "0.800", "0.7500", "8", "12", "kept", "its", "first", "head"],
    ]
    assert shown[9][0] == "choice:"


def test_quiet_shows_the_scores_only(crossroads, data, tmp_path):
    _, out, err = crossroads("fit", data, "--out", tmp_path / "run", *QUICK, "--quiet")
    assert not any(line.startswith(("epoch ", "decoding")) for line in out.splitlines())
    assert "test_accuracy: " in out
    assert [line.split()[:4] for line in err.splitlines()] == [["note:", "12", "test", "images"]]  # a warning


def test_fit_json_is_one_object(crossroads, data, tmp_path):
    code, out, err = crossroads("fit", data, "--out", tmp_path / "run", *QUICK, "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["artifact"] == str(tmp_path / "run")
    assert answer["strategy"] == "from-scratch"
    assert answer["seconds"] > 0
    for split in ("validation", "test"):
        assert {"n", "accuracy", "accuracy_interval", "balanced_accuracy", "loss"} <= answer[split].keys()
    assert "epoch 1/2" in err


def test_evaluate(crossroads, artifact, data):
    code, out, _ = crossroads("evaluate", artifact, data)
    assert code == 0
    assert "accuracy: " in out
    _, out, _ = crossroads("evaluate", artifact, data, "--json")
    answer = json.loads(out)
    assert np.sum(answer["confusion_matrix"]) == answer["n"] == 60
    assert [c["name"] for c in answer["per_class"]] == ["level", "upright"]


def test_evaluate_notes_unusual_images(crossroads, artifact, tmp_path):
    for number in range(6):
        home = tmp_path / ("level", "upright")[number % 2]
        home.mkdir(exist_ok=True)
        dark = Image.fromarray(np.random.default_rng(number).integers(0, 4000, (9, 9)).astype(np.uint16))
        dark.save(home / f"{number}.tif", save_all=True, append_images=[dark])
    code, out, _ = crossroads("evaluate", artifact, tmp_path)
    assert code == 0
    assert "6 of 6" in out
    assert "of 65,535" in out
    assert "pages" in out


def test_predict_ranks_labels(crossroads, artifact, data):
    image = data / "upright" / "0001.png"
    code, out, _ = crossroads("predict", artifact, image)
    assert code == 0
    assert out.startswith(f"{image}: upright ")
    _, out, _ = crossroads("predict", artifact, image, "--top", 1, "--json")
    (answer,) = json.loads(out)["predictions"]
    assert answer["labels"][0]["label"] == "upright"
    assert len(answer["labels"]) == 1


def test_predict_reads_only_the_images_of_a_folder(crossroads, artifact, data, tmp_path):
    shutil.copytree(data / "upright", tmp_path / "new" / "deep")
    (tmp_path / "new" / "notes.txt").write_text("not for prediction")
    code, out, _ = crossroads("predict", artifact, tmp_path / "new", "--json")
    assert code == 0
    assert len(json.loads(out)["predictions"]) == len(list((data / "upright").iterdir()))
    (tmp_path / "empty").mkdir()
    code, _, err = crossroads("predict", artifact, tmp_path / "empty")
    assert code == 2
    assert "must hold images" in err


def test_predict_lists_a_folder_as_fit_does(crossroads, artifact, data, tmp_path):
    new = tmp_path / "new"
    for name in ("shot10.png", "shot9.png", "deep/shot1.PNG", ".hidden.png", ".ipynb_checkpoints/shot9.png", "@eaDir/shot9.png"):
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(data / "upright" / "0001.png", new / name)
    for name in ("._shot9.png", "__MACOSX/._shot9.png", "Thumbs.db"):
        (new / name).parent.mkdir(exist_ok=True)
        (new / name).write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    (new / "linked").symlink_to(data / "level")
    (new / "again").symlink_to(data / "level")
    (new / "shot11.png").symlink_to(data / "level" / "0000.png")
    code, out, err = crossroads("predict", artifact, new, "--json")
    assert code == 0
    names = [prediction["name"] for prediction in json.loads(out)["predictions"]]
    own = [name for name in names if "again/" not in name]
    assert own == [str(new / name) for name in ("deep/shot1.PNG", "shot9.png", "shot10.png", "shot11.png")]
    assert len(names) - len(own) == len(list((data / "level").iterdir()))
    assert "1 link" in err
    assert "linked" in err
    (warning,) = json.loads(out)["warnings"]
    assert warning in err


def test_predict_refuses_unsupported_formats(crossroads, artifact, data, tmp_path):
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(90))
    (tmp_path / "scan").write_bytes((data / "upright" / "0001.png").read_bytes())
    code, out, err = crossroads("predict", artifact, tmp_path)
    assert (code, out) == (2, "")
    assert "HEIC" in err
    code, out, _ = crossroads("predict", artifact, tmp_path / "scan")  # without a suffix, but named by the user
    assert code == 0
    assert "upright" in out


def test_files_that_are_not_images_are_counted_by_suffix(crossroads, artifact, data, tmp_path):
    photos = tmp_path / "photos"
    shutil.copytree(data, photos)
    for image in sorted((photos / "level").iterdir()):
        image.with_suffix(".MOV").write_bytes(b"\0\0\0\x14ftypqt  ")
    (photos / "notes.txt").write_text("x")
    count = len(list((photos / "level").glob("*.MOV")))
    for answer in (crossroads("audit", photos, "--json"), crossroads("predict", artifact, photos, "--json")):
        (warning,) = json.loads(answer[1])["warnings"]
        assert f"{count} .mov, 1 .txt" in warning


@pytest.mark.parametrize("head", [b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"])
def test_jpeg_xl_is_refused_by_name(crossroads, artifact, data, tmp_path, head):
    photos = tmp_path / "photos"
    shutil.copytree(data, photos)
    (photos / "level" / "photo.jxl").write_bytes(head + bytes(range(200)))
    (refusal,) = json.loads(crossroads("audit", photos, "--json")[1])["refused"]
    assert "JPEG XL" in refusal["reason"]
    assert "JPEG or PNG" in refusal["reason"]
    code, _, err = crossroads("predict", artifact, photos)
    assert code == 2
    assert "JPEG XL" in err


def test_one_bad_image_does_not_hide_the_others(crossroads, artifact, data, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"not an image")
    code, out, err = crossroads("predict", artifact, data / "level" / "0000.png", tmp_path / "bad.png", tmp_path / "none.png")
    assert code == 2
    assert "level" in out
    assert "bad.png" in err
    assert "none.png" in err
    assert "Traceback" not in err


def test_audit(crossroads, data):
    code, out, _ = crossroads("audit", data)
    assert code == 0
    assert "60" in out
    code, out, _ = crossroads("audit", data, "--json")
    answer = json.loads(out)
    assert (answer["n"], answer["refused"], answer["warnings"]) == (60, [], [])


def test_audit_of_data_without_problems_says_so(crossroads, data, monkeypatch):
    monkeypatch.setattr("crossroads.api.audit", lambda *a, **k: replace(audit(*a, **k), findings=()))
    _, out, _ = crossroads("audit", data)
    assert out.rstrip().endswith("no problems found")


def test_audit_lists_every_refused_image(crossroads, data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    for number in range(7):
        (tmp_path / "data" / "level" / f"broken-{number}.png").write_bytes(b"no image")
    _, out, _ = crossroads("audit", tmp_path / "data", "--json")
    answer = json.loads(out)
    assert answer["readable"] == 60
    assert sorted(row["name"].rpartition("/")[2] for row in answer["refused"]) == [f"broken-{number}.png" for number in range(7)]
    assert all(row["reason"] for row in answer["refused"])


def test_backbones(crossroads):
    code, out, _ = crossroads("backbones")
    assert code == 0
    assert "quiz-cnn" in out
    _, out, _ = crossroads("backbones", "--json")
    assert {"small-cnn", "quiz-cnn"} <= {record["name"] for record in json.loads(out)}


def test_options_override_the_recipe(crossroads, data, tmp_path):
    (tmp_path / "recipe.toml").write_text(
        'strategy = "from-scratch"\nepochs = 5\nimage_size = 16\nbatch_size = 16\ntest_fraction = 0.0\nbackbone = "quiz-cnn"\n'
    )
    code, out, _ = crossroads("fit", data, "--out", tmp_path / "run", "--recipe", tmp_path / "recipe.toml", "--epochs", 1, "--json")
    answer = json.loads(out)
    assert code == 0
    assert (answer["epochs"], answer["backbone"], answer["test"]) == (1, "quiz-cnn", None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "DATA"], "--out"),
        (["fit", "DATA", "--out", "RUN", "--backbone", "quizcnn"], "did you mean 'quiz-cnn'"),
        (["fit", "DATA", "--out", "RUN", "--epochs", "0"], "error: --epochs must be between"),
        (["fit", "DATA", "--out", "RUN", "--image-size", "4"], "error: --image-size must be between"),
        (["fit", "DATA", "--out", "RUN", "--test", "DATA", "--test-fraction", "0.2"], "error: --test-fraction has no effect"),
        (["weights"], "crossroads weights needs a command: add, list"),
        (["fit", "DATA", "--out", "RUN", "--strategy", "foo"], "error: --strategy must be one of"),
        (["fit", "DATA", "--out", "RUN", "--cut", "0.5"], "cut"),
        (["fit", "DATA", "--out", "RUN", "--feature-type", "x"], "error: --feature-type must be one of"),
        (["fit", "DATA", "--out", "RUN", "--test-share", "0.2"], "use --test-fraction"),
        (["fit", "DATA", "--out", "RUN", "--mixup", "0.2"], "--mixup was removed"),
        (["fit", "DATA", "--out", "DATA/run"], "error: --out must not be inside"),
        (["fit", "DATA", "--out", "RUN", "--recipe", "none.toml"], "error: the file of --recipe"),
        (["fitt"], "Did you mean 'fit'?; see crossroads --help"),
        (["cache", "empty"], "No such command 'empty'; known commands: clear, info"),
        (["cache"], "crossroads cache needs a command: clear, info"),
        (["fit", "DATA", "--out", "RUN", "--strategy", "scratch"], "from-scratch"),
        (["fit", "DATA", "--out", "RUN", "--strategy", "from-scratch", "--image-size", "8"], "takes images of 16 to 512 px"),
        (["fit", "none", "--out", "RUN"], "none"),
        (["evaluate", "DATA", "DATA"], "artifact"),
        (["audit", "none"], "none"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(crossroads, data, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = crossroads(*[argument.replace("DATA", str(data)) for argument in arguments])
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_the_recipe_may_name_the_data_and_the_command_line_overrides_it(crossroads, data, tmp_path):
    lines = (f'data = "{data}"', 'strategy = "from-scratch"', 'backbone = "quiz-cnn"', "epochs = 1", "image_size = 16")
    (tmp_path / "recipe.toml").write_text("\n".join((*lines, "test_fraction = 0.0")))
    code, out, _ = crossroads("fit", "--recipe", tmp_path / "recipe.toml", "--out", tmp_path / "run", "--json")
    assert code == 0
    assert json.loads(out)["validation"]["n"] == 6
    code, _, err = crossroads("fit", "nowhere", "--recipe", tmp_path / "recipe.toml", "--out", tmp_path / "other")
    assert code == 2
    assert "nowhere does not exist" in err


@pytest.mark.parametrize(
    ("text", "message"),
    [("x = = 3", "weight_decay.toml must be TOML"), ("weight_decay = 11", "weight_decay.toml: weight_decay must be")],
)
def test_an_error_in_a_recipe_file_keeps_the_names_of_file_and_field(crossroads, data, tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weight_decay.toml").write_text(text)
    code, _, err = crossroads("fit", data, "--out", "run", "--recipe", "weight_decay.toml")
    assert code == 2
    assert err.startswith(f"error: {message}")


def test_an_unknown_option_is_exit_code_2(crossroads, data):
    code, _, err = crossroads("fit", data, "--epoch", 3)
    assert code == 2
    assert "--epochs" in err


def test_a_full_disk_is_an_error_without_a_traceback(crossroads, data, tmp_path, monkeypatch):
    from crossroads.training import checkpoint

    def full(path, content):
        raise OSError(28, os.strerror(28), str(path))

    monkeypatch.setattr(checkpoint, "write_atomically", full)
    code, _, err = crossroads("fit", data, "--out", tmp_path / "run", *QUICK)
    assert code == 2
    assert "No space left on device" in err.splitlines()[-1]


@pytest.mark.parametrize("kept", [True, False])
def test_an_interrupt_says_whether_the_run_can_be_resumed(crossroads, data, tmp_path, monkeypatch, kept):
    from crossroads import api

    def interrupted(*_, out, **__):
        if kept:
            (out / "checkpoint").mkdir(parents=True)
            (out / "checkpoint" / "run.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "fit", interrupted)
    code, _, err = crossroads("fit", data, "--out", tmp_path / "run")
    assert code == 130
    assert err.splitlines()[-1].startswith("error: stopped")
    assert ("--resume" in err, "nothing was kept" in err) == (kept, not kept)


def test_no_command_prints_the_help(crossroads):
    code, out, _ = crossroads()
    assert code == 0
    assert out.startswith("Usage: crossroads")


def test_output_into_a_closed_pipe_is_no_traceback(artifact, data):
    command = f"{sys.executable} -m crossroads evaluate {artifact} {data} --quiet | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("n: ")
    assert "Traceback" not in done.stderr


def test_demo_fits_the_installed_network_and_suggests_the_next_commands(crossroads, tmp_path, monkeypatch):
    from crossroads import demo

    monkeypatch.chdir(tmp_path)
    images, labels = demo.digits()
    monkeypatch.setattr(demo, "digits", lambda: (images[:200], labels[:200]))
    monkeypatch.setenv("CROSSROADS_CACHE", str(tmp_path / "cache"))
    code, out, _ = crossroads("demo")
    assert code == 0
    assert "backbone: efficientnet-lite0\n" in out
    assert "artifact: runs/demo" in out
    command = next(line for line in out.splitlines() if line.startswith("next: crossroads predict")).split()[2:]
    assert Image.open(command[-1]).size == (8, 8)
    code, out, _ = crossroads(*command)
    assert code == 0


def test_advise_prints_recommendations_and_json(crossroads, data, tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSROADS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(baselines, "SHORT_PASSES", 0)  # no image is left for a short training
    options = ("--backbone", "quiz-cnn", "--weights", "none", "--image-size", "16", "--validation", "0.2", "--test-fraction", "0.2")
    code, out, err = crossroads("advise", data, *options, "--budget", "10m")
    assert (code, err) == (0, "")
    for part in ("recommended: ", "\nRecommended strategies", "\nReasons\n", "\nProbe accuracy by depth: quiz-cnn"):
        assert part in out
    shutil.copytree(data, tmp_path / "data")
    for number in range(10):  # some of them in the training split
        (tmp_path / "data" / "level" / f"broken-{number}.png").write_bytes(b"no image")
    code, out, _ = crossroads("advise", tmp_path / "data", *options, "--json")
    assert code == 0
    answer = json.loads(out)
    assert [row["strategy"] for row in answer["ranked"]]
    refused = [row["name"] for row in answer["refused"]]
    assert refused
    assert all("broken-" in name for name in refused)
    assert any(warning.startswith(f"{len(refused)} images of the sample were refused") for warning in answer["warnings"])

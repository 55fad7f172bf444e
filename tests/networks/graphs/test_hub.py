"""Covers networks by name from the hub, against a local server that speaks its API."""

import json
import os
import subprocess
import sys
import time

import pytest

import crossroads
from crossroads.artifact import open_verified, read_metrics
from crossroads.errors import BackboneError, MissingExtraError, RecipeError
from crossroads.networks.construct import choose, is_graph
from crossroads.networks.graphs import files, read_graph
from crossroads.networks.graphs.hub import fetch, parse, pin, same_network
from crossroads.recipe import Recipe
from crossroads.run.folder import RunFolder
from crossroads.run.task import require_valid
from hub_server import serving
from pictures import folder_of, stripes
from refusals import refused
from tiny_graphs import SIZE, onnx_graph

huggingface_hub = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")

CONFIG = json.dumps(
    {"do_resize": True, "size": {"height": SIZE, "width": SIZE}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
).encode()
CARD = b"---\nlicense: apache-2.0\nbase_model: lab/tiny\n---\nA tiny network.\n"


def repository(graph="onnx/model.onnx", seed=0):
    """Returns the files of a repository as exporters write them, with files that must not be fetched."""
    return {
        graph: onnx_graph(seed=seed)[0],
        "preprocessor_config.json": CONFIG,
        "README.md": CARD,
        "config.json": b"{}",
        "modeling_tiny.py": b"raise SystemExit('executed')",
        "pytorch_model.bin": b"\x80\x02",
    }


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Yields a local hub with the repository lab/tiny, and an empty cache of the hub's package."""
    with serving() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        template = f"{server.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        server.commit("lab/tiny", repository())
        yield server


@pytest.fixture
def photos(tmp_path):
    return folder_of(tmp_path / "photos", *stripes(24))


@pytest.fixture
def offline(hub, monkeypatch):
    """Returns a function that turns the hub off: by the variable of its package, or by an address where nobody answers."""

    def turn_off(how):
        if how == "variable":
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
            huggingface_hub.close_session()
        else:
            hub.status = 503
            monkeypatch.setattr(time, "sleep", lambda _: None)  # between the attempts of the package

    yield turn_off
    huggingface_hub.close_session()


# Names


@pytest.mark.parametrize(
    ("named", "parts"),
    [
        ("hf:lab/tiny", ("lab/tiny", None, None)),
        ("hf:lab/tiny-v2.1_x@refs/pr/3", ("lab/tiny-v2.1_x", "refs/pr/3", None)),
        ("hf:lab/tiny:onnx/model_fp16.onnx", ("lab/tiny", None, "onnx/model_fp16.onnx")),
        ("hf:lab/tiny@v1:net.tflite", ("lab/tiny", "v1", "net.tflite")),
    ],
)
def test_a_name_has_a_repository_a_revision_and_a_file(named, parts):
    name = parse(named)
    assert (name.repository, name.revision, name.file) == parts
    assert str(name) == named
    assert is_graph(named)


@pytest.mark.parametrize(
    "named",
    [
        "hf:",
        "hf:tiny",
        "hf:a/b/c",
        "hf:lab/tiny@",
        "hf:lab/tiny@v1@v2",
        "hf:lab/tiny:",
        "hf:lab/tiny:model.py",
        "hf:lab/tiny:model.xml",
        "hf:lab/tiny:pytorch_model.bin",
        "hf:lab/tiny:../model.onnx",
        "hf:lab/tiny:/model.onnx",
    ],
)
def test_other_names_are_refused(named):
    with refused("hub-name", BackboneError, field="backbone"):
        choose(named)


def test_a_name_that_the_package_refuses_is_refused(hub):
    with refused("hub-download", BackboneError):
        choose("hf:lab/ti--ny")


# Download


def test_only_the_graph_and_what_describes_it_is_fetched(hub):
    path = fetch("hf:lab/tiny")
    assert sorted(hub.fetched()) == ["README.md", "onnx/model.onnx", "preprocessor_config.json"]
    assert constants.HF_HUB_CACHE in str(path)
    body = read_graph(path)
    assert (body.size, body.end.name, body.weights["licence"]) == (SIZE, "features", "Apache-2.0")


def test_the_second_use_of_a_pinned_name_needs_no_connection(hub):
    name = pin("hf:lab/tiny")
    first = fetch(name)
    hub.asked.clear()
    assert fetch(name) == first
    assert hub.asked == []


def test_progress_is_reported_for_the_graph(hub):
    seen = []
    fetch("hf:lab/tiny", lambda *each: seen.append(each))
    size = len(repository()["onnx/model.onnx"])
    assert seen[-1] == ("downloading model.onnx", size, size)
    assert {stage for stage, _, _ in seen} == {"downloading model.onnx"}
    seen.clear()
    fetch("hf:lab/tiny", lambda *each: seen.append(each))
    assert seen == []


def test_weights_beside_the_graph_are_fetched_and_read_through_the_cache(hub):
    graph, data = onnx_graph("model.onnx_data")
    alone = onnx_graph()[0]
    commit = hub.commit("lab/large", {"onnx/model.onnx": graph, "onnx/model.onnx_data": data, "net.onnx": alone})
    path = fetch("hf:lab/large")
    assert set(hub.fetched()) == {"onnx/model.onnx", "onnx/model.onnx_data"}
    assert read_graph(path, preprocessing="tf").end.name == "features"
    assert not (path.parent / "model.onnx_data").is_symlink()
    assert fetch(f"hf:lab/large@{commit}:onnx/model.onnx") == path
    assert hub.fetched() == []


@pytest.mark.parametrize("location", ["weights.bin", "weights.pkl", "code.py", "../secret.data", "/etc/secret.data"])
def test_other_files_beside_the_graph_are_not_fetched(location, hub):
    graph, data = onnx_graph(location)
    hub.commit("lab/large", {"onnx/model.onnx": graph, f"onnx/{location}": data, "secret.data": data})
    with refused("weights-outside-folder" if "/" in location else "no-graph-weights", BackboneError):
        choose("hf:lab/large")
    assert hub.fetched() == ["onnx/model.onnx"]


def test_a_graph_of_2_gb_is_refused_before_it_is_fetched(hub, monkeypatch):
    monkeypatch.setattr(files, "LARGEST", len(repository()["onnx/model.onnx"]))
    with refused("graph-too-large", BackboneError):
        fetch("hf:lab/tiny")
    assert "onnx/model.onnx" not in hub.fetched()


def test_preprocessing_and_licence_are_found_above_any_folder_of_a_repository(hub):
    hub.commit("lab/deep", repository("exported/fp32/net.onnx"))
    body = read_graph(fetch("hf:lab/deep"))
    assert (body.size, body.weights["licence"], body.weights["source"]) == (SIZE, "Apache-2.0", "lab/tiny")


def test_the_source_of_a_backbone_is_its_pinned_name(hub):
    from crossroads.features.bodies import body_of

    commit = hub.commit("lab/tiny", repository(seed=1))
    choice = choose("hf:lab/tiny")
    body = body_of(choice, SIZE, "own")
    assert choice.record.name == body.weights["source"] == f"hf:lab/tiny@{commit}:onnx/model.onnx"
    assert not choice.record.trainable


# Which graph


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["net.onnx"], "net.onnx"),
        (["onnx/model.onnx", "onnx/model_fp16.onnx", "vision.onnx"], "onnx/model.onnx"),
    ],
)
def test_the_only_graph_or_the_main_one_is_meant(names, chosen, hub):
    commit = hub.commit("lab/other", dict.fromkeys(names, b""))
    assert pin("hf:lab/other") == f"hf:lab/other@{commit}:{chosen}"


def test_one_of_several_graphs_must_be_named(hub):
    commit = hub.commit("lab/other", {"text.onnx": b"", "vision.onnx": b"", "model.bin": b""})
    with refused("hub-several-graphs", BackboneError) as caught:
        pin("hf:lab/other")
    assert "text.onnx, vision.onnx" in caught.value.hint
    assert "model.bin" not in caught.value.hint
    assert pin("hf:lab/other:vision.onnx") == f"hf:lab/other@{commit}:vision.onnx"
    with refused("hub-no-file", BackboneError):
        pin("hf:lab/other:image.onnx")


def test_a_repository_without_a_graph_is_refused_with_its_files(hub):
    hub.commit("lab/other", {"model.safetensors": b"", "config.json": b""})
    with refused("hub-no-graph", BackboneError) as caught:
        pin("hf:lab/other")
    assert "config.json, model.safetensors" in caught.value.hint


# Revisions


def test_a_revision_is_pinned_to_its_commit(hub):
    first = hub.commit("lab/moving", repository(), "v1")
    second = hub.commit("lab/moving", repository(seed=1))
    names = {revision: pin(f"hf:lab/moving{revision}") for revision in ("", "@main", "@v1", f"@{first}")}
    assert {revision: parse(name).revision for revision, name in names.items()} == {
        "": second,
        "@main": second,
        "@v1": first,
        f"@{first}": first,
    }
    assert pin(names["@v1"]) == names["@v1"]


def test_a_run_is_resumed_with_the_commit_that_it_started_with(hub, photos, tmp_path):
    class Stops(crossroads.Silent):
        def progress(self, stage, done, total):
            if not stage.startswith("downloading"):
                raise KeyboardInterrupt

    options = {"strategy": "feature-extraction", "backbone": "hf:lab/tiny", "seed": 3, "test_fraction": 0.25}
    folder = RunFolder(tmp_path / "run")
    first = pin("hf:lab/tiny")
    with pytest.raises(KeyboardInterrupt):
        crossroads.fit(photos, out=tmp_path / "other", watcher=Stops(), **options)
    recipe = Recipe.from_mapping({**options, "backbone": first, "data": str(photos)})
    (tmp_path / "run" / "checkpoint").mkdir(parents=True)  # a run that was killed
    (tmp_path / "run" / "checkpoint" / "run.json").write_text(json.dumps(recipe.to_mapping()))
    hub.commit("lab/tiny", repository(seed=1))
    assert folder.unfinished
    run = crossroads.fit(photos, out=tmp_path / "run", resume=True, watcher=crossroads.Silent(), **options)
    assert open_verified(run.artifact).facts["recipe"]["backbone"] == first
    assert read_metrics(run.artifact)["weights"]["source"] == first
    again = crossroads.fit(photos, out=tmp_path / "run", resume=True, watcher=crossroads.Silent(), **options)
    assert again.metrics == run.metrics


def test_a_run_is_not_resumed_with_another_network(hub):
    first = pin("hf:lab/tiny")
    hub.commit("lab/tiny", repository(seed=1), "v2")
    folder, stored = RunFolder("run"), Recipe(backbone=first)
    for same in ("hf:lab/tiny", "hf:lab/tiny:onnx/model.onnx", first, first.rpartition(":")[0]):
        folder.require_same(Recipe(backbone=same), ["backbone"], stored)
    for other in ("hf:lab/tiny@v2", "hf:lab/tiny@main", "hf:lab/tiny:net.onnx", "hf:lab/other", "mobilenet"):
        with refused("resumed-with-other-option", RecipeError, field="backbone"):
            folder.require_same(Recipe(backbone=other), ["backbone"], stored)
    assert same_network("hf:lab/tiny@v2", pin("hf:lab/tiny"))


# Without a connection


@pytest.mark.parametrize("how", ["variable", "no answer"])
@pytest.mark.parametrize("revision", ["", "@main", "@v1"])
def test_what_is_in_the_cache_needs_no_connection(revision, how, hub, offline):
    hub.commit("lab/known", repository(), "v1")
    name, path = pin(f"hf:lab/known{revision}"), fetch(f"hf:lab/known{revision}")
    offline(how)
    notes = []
    assert (pin(f"hf:lab/known{revision}", notes.append), fetch(f"hf:lab/known{revision}")) == (name, path)
    assert [(note.code, note.figures["commit"]) for note in notes] == [("hub-cached-revision", parse(name).revision)]
    assert pin(name, notes.append) == name
    assert len(notes) == 1


def test_a_graph_that_another_program_fetched_needs_no_connection(hub, offline):
    commit = pin("hf:lab/tiny").split("@")[1][:40]
    huggingface_hub.hf_hub_download("lab/tiny", "onnx/model.onnx")
    offline("variable")
    path = fetch("hf:lab/tiny")
    assert commit in str(path)
    with refused("preprocessing-needed", BackboneError):
        require_valid(Recipe(backbone="hf:lab/tiny", strategy="feature-extraction"), None)


@pytest.mark.parametrize(("how", "code"), [("variable", "hub-offline"), ("no answer", "hub-unreachable")])
@pytest.mark.parametrize("named", ["hf:lab/tiny", "hf:lab/tiny@v1", f"hf:lab/tiny@{'0' * 40}:onnx/model.onnx"])
def test_what_is_not_in_the_cache_needs_a_connection(named, how, code, hub, offline):
    offline(how)
    with refused(code, BackboneError, field="backbone") as caught:
        choose(named)
    assert "\n" not in str(caught.value)


def test_a_hub_where_nobody_listens_is_one_clear_line(hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with refused("hub-unreachable", BackboneError) as caught:
        choose("hf:lab/tiny")
    assert "refused" in str(caught.value.received)
    assert "\n" not in str(caught.value)


# Refusals of the hub


@pytest.mark.parametrize(
    ("named", "code"),
    [
        ("hf:lab/none", "hub-no-repository"),
        ("hf:lab/tiny@v9", "hub-no-revision"),
        (f"hf:lab/tiny@{'0' * 40}:onnx/model.onnx", "hub-no-revision"),
        ("hf:lab/tiny:onnx/none.onnx", "hub-no-file"),
        ("hf:lab/closed", "hub-gated"),
    ],
)
def test_refusals_of_the_hub_are_one_clear_line(named, code, hub):
    hub.commit("lab/closed", repository())
    hub.gated.add("lab/closed")
    with refused(code, BackboneError, field="backbone") as caught:
        choose(named)
    assert "\n" not in str(caught.value)


def test_a_pinned_file_that_does_not_exist_is_refused(hub):
    commit = hub.commit("lab/tiny", repository())
    with refused("hub-no-file", BackboneError):
        choose(f"hf:lab/tiny@{commit}:onnx/none.onnx")


@pytest.mark.parametrize(("status", "code"), [(403, "hub-refused"), (429, "hub-refused"), (500, "hub-unreachable")])
def test_other_answers_are_one_clear_line(status, code, hub):
    hub.status = status
    with refused(code, BackboneError) as caught:
        choose("hf:lab/tiny")
    assert "\n" not in str(caught.value)


def test_a_cache_that_cannot_be_written_is_refused(hub, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "cache"))
    with refused("hub-cache", BackboneError):
        choose("hf:lab/tiny")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with refused("missing-extra", MissingExtraError) as caught:
        choose("hf:lab/tiny")
    assert ".[hub]" in caught.value.hint


@pytest.mark.parametrize("strategy", ["finetune", "finetune-early", "warm-start", "from-scratch"])
def test_a_strategy_that_trains_is_refused_before_the_hub_is_asked(strategy, hub, photos, tmp_path):
    with refused("graph-not-trainable", RecipeError):
        crossroads.fit(photos, out=tmp_path / "run", backbone="hf:lab/tiny", strategy=strategy, watcher=crossroads.Silent())
    assert hub.asked == []
    assert not (tmp_path / "run").exists()


# The environment variables of the hub's package, in processes of their own


def test_the_command_line_uses_the_variables_of_the_hub(hub, photos, tmp_path):
    def command(out, **variables):
        environment = os.environ | {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home")} | variables
        arguments = ["fit", "photos", "--out", out, "--strategy", "feature-extraction", "--backbone", "hf:lab/tiny"]
        done = [sys.executable, "-m", "crossroads", *arguments]
        return subprocess.run(done, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    missing = command("run", HF_HUB_OFFLINE="1")
    assert missing.returncode == 2
    assert missing.stderr.startswith("error: lab/tiny is not in the hub's cache")
    first = command("run")
    assert first.returncode == 0, first.stderr
    assert "downloading model.onnx" in first.stdout
    assert (tmp_path / "home" / "hub" / "models--lab--tiny").is_dir()
    hub.asked.clear()
    again = command("again", HF_HUB_OFFLINE="1")
    assert again.returncode == 0, again.stderr
    assert hub.asked == []

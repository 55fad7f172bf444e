"""Covers the interface: predictions, refusals, limits, the token, other origins and the figures."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from crossroads.predictor import Predictor
from crossroads.serve import bodies
from picture_files import bomb, pictures
from tiny_artifact import CLASSES

OCTETS = {"content-type": bodies.OCTETS}


def code(answer, status):
    """Returns the code of an error, which must have this status and the form of every error."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    (error,) = answer.json().values()
    assert error["message"]
    assert error.keys() <= {"code", "message", "hint"}
    return error["code"]


def labels_of(prediction):
    return [(ranked["label"], ranked["probability"]) for ranked in prediction["labels"]]


def test_raw_image_is_predicted_as_the_library_does(client, first):
    (picture,) = pictures(1)
    (expected,) = Predictor.load(first).predict([picture], top=3)
    answer = client.post("/v1/predict?top=3", content=picture, headers={"content-type": "image/png"})
    assert answer.json() == {"model": "first", "predictions": [{"name": "image", "labels": expected.to_json()["labels"]}]}


def test_form_with_many_images_keeps_their_order_and_names(client, second):
    files = pictures(9)
    answer = client.post("/v1/predict?model=second", files=[("images", (f"{n}.png", data)) for n, data in enumerate(files)])
    found = answer.json()["predictions"]
    assert [prediction["name"] for prediction in found] == [f"{n}.png" for n in range(9)]
    expected = Predictor.load(second).predict(files)
    for prediction, right in zip(found, expected, strict=True):
        assert [label for label, _ in labels_of(prediction)] == [label for label, _ in right.labels]
        assert [p for _, p in labels_of(prediction)] == pytest.approx([p for _, p in right.labels], abs=1e-6)


def test_requests_of_many_connections_get_their_own_answers(client, first):
    files = pictures(40, seed=1)
    expected = Predictor.load(first).predict(files, top=1)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda data: client.post("/v1/predict?top=1", content=data, headers=OCTETS), files))
    for answer, right in zip(answers, expected, strict=True):
        assert labels_of(answer.json()["predictions"][0]) == [(right.labels[0].label, pytest.approx(right.labels[0].probability))]


def test_an_unreadable_image_among_others_has_an_error_in_its_place(client):
    good, bad = pictures(1)[0], b"no image at all"
    found = client.post("/v1/predict", files=[("a", ("bad.png", bad)), ("b", ("good.png", good))]).json()["predictions"]
    assert found[0]["name"] == "bad.png"
    assert found[0]["error"]["code"] == "not-an-image"
    assert len(found[1]["labels"]) == len(CLASSES)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"no image at all", "not-an-image"),
        (pictures(1)[0][:100], "image-truncated"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "image-truncated"),
    ],
    ids=("text", "cut", "zeros"),
)
def test_only_unreadable_images_are_refused(client, body, expected):
    assert code(client.post("/v1/predict", content=body, headers=OCTETS), 422) == expected


def test_bodies_that_are_no_images_are_refused(client):
    post = client.post
    assert code(post("/v1/predict"), 400) == "no-image"
    assert code(post("/v1/predict", json={"image": "…"}), 415) == "unsupported-body"
    assert (
        code(post("/v1/predict", content=b"x", headers={"content-type": "image/png", "content-encoding": "gzip"}), 415)
        == "encoded-body"
    )
    assert code(post("/v1/predict", files={"images": b"x"}, data={"top": "3"}), 400) == "not-a-file"
    form = {"content-type": "multipart/form-data; boundary=x"}
    assert code(post("/v1/predict", content=b"--x\r\n", headers=form), 400) == "malformed-form"
    assert code(post("/v1/predict", content=b"--x--\r\n", headers=form), 400) == "no-image"
    assert code(post("/v1/predict", content=b"", headers={"content-type": "multipart/form-data"}), 400) == "malformed-form"
    cut = b'--x\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n' + pictures(1)[0]
    assert code(post("/v1/predict", content=cut, headers=form), 400) == "malformed-form"


def test_parameters_are_checked(client):
    (picture,) = pictures(1)
    post = lambda query: client.post(f"/v1/predict?{query}", content=picture, headers=OCTETS)  # noqa: E731
    assert code(post("tpo=3"), 400) == "unknown-parameter"
    assert code(post("model=third"), 404) == "unknown-model"
    for bad in ("0", "x", "1e9", "99999999999999999999999"):
        assert code(post(f"top={bad}"), 422) == "invalid-parameter"
    assert len(post("top=10000").json()["predictions"][0]["labels"]) == len(CLASSES)


def test_limits_on_bytes_files_and_pixels(connect, first):
    with connect(first=first, max_body=5_000, max_files=2, max_pixels=500) as client:
        post = client.post
        assert code(post("/v1/predict", content=b"x" * 5_001, headers=OCTETS), 413) == "body-too-large"
        assert code(post("/v1/predict", content=iter([b"x" * 4_000] * 2), headers=OCTETS), 413) == "body-too-large"
        assert code(post("/v1/predict", files=[("a", (str(n), b"x")) for n in range(3)]), 413) == "too-many-files"
        assert code(post("/v1/predict", content=pictures(1, side=23)[0], headers=OCTETS), 422) == "image-too-large"
        assert post("/v1/predict", content=pictures(1, side=22)[0], headers=OCTETS).status_code == 200


def test_a_small_file_with_a_giant_image_is_refused_before_it_is_decoded(client):
    assert code(client.post("/v1/predict", content=bomb(8_000, 8_000), headers=OCTETS), 422) == "image-too-large"


def test_a_full_server_is_busy(connect, first):
    with connect(first=first, max_waiting=3, max_files=3) as client:
        service = client.app.state.service
        service.batches.pending = 2
        assert code(client.post("/v1/predict", files=[("a", (str(n), b"x")) for n in range(2)]), 503) == "busy"
        service.batches.pending = 3
        answer = client.post("/v1/predict", content=b"x", headers=OCTETS)
        assert code(answer, 503) == "busy"
        assert int(answer.headers["retry-after"]) >= 1
        service.batches.pending = 0
        service.held.bytes = service.settings.max_held
        assert code(client.post("/v1/predict", content=b"x", headers=OCTETS), 503) == "busy"


def test_bytes_are_held_only_during_a_request(client):
    client.post("/v1/predict", content=b"x" * 1000, headers=OCTETS)
    client.post("/v1/predict", files={"a": b"x" * 1000})
    assert client.app.state.service.held.bytes == 0
    assert client.app.state.service.batches.pending == 0


def test_models_are_listed_without_their_folders(client, first):
    answer = client.get("/v1/models")
    (one, two) = answer.json()["models"]
    assert (one["name"], one["classes"], one["accuracy"]) == ("first", list(CLASSES), None)
    assert two["accuracy"]["accuracy"] == 0.9
    assert one["artifact"] != two["artifact"]
    assert str(first.parent) not in answer.text


def test_health_and_readiness(client):
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json() == {"status": "ready"}
    assert client.head("/health").status_code == 200
    service = client.app.state.service
    service.draining = True
    assert code(client.get("/ready"), 503) == "stopping"
    assert client.get("/health").status_code == 200
    service.draining = False


def test_unknown_addresses_and_methods(client):
    assert code(client.get("/nowhere"), 404) == "not-found"
    assert code(client.get("/static/../app.py"), 404) == "not-found"
    assert code(client.get("/static/app.py"), 404) == "not-found"
    assert code(client.get("/v1/predict"), 405) == "method-not-allowed"
    assert code(client.get("/report/first"), 404) == "no-report"
    assert code(client.get("/report/none"), 404) == "unknown-model"


def test_a_fault_of_the_program_tells_nothing_about_it(connect, first, monkeypatch):
    with connect(first=first) as client:
        monkeypatch.setattr(Predictor, "ranked", lambda *_: 1 / 0)
        answer = client.post("/v1/predict", content=pictures(1)[0], headers=OCTETS)
        assert code(answer, 500) == "internal"
        assert "division" not in answer.text
        monkeypatch.undo()
        assert client.post("/v1/predict", content=pictures(1)[0], headers=OCTETS).status_code == 200


def test_a_token_protects_all_but_health(connect, first):
    with connect(first=first, token="secret") as client:
        basic = base64.b64encode(b"anyone:secret").decode()
        for header in ("Bearer secret", f"Basic {basic}", "bearer secret"):
            assert client.get("/v1/models", headers={"authorization": header}).status_code == 200
        wrong = base64.b64encode(b"secret:x").decode()
        for header in ("", "Bearer", "Bearer x", "Bearer secre", "Basic", "Basic !", f"Basic {wrong}", "secret", "Bearer sécret"):
            answer = client.get("/v1/models", headers={"authorization": header.encode()})
            assert code(answer, 401) == "unauthorized"
            assert "Basic" in answer.headers["www-authenticate"]
        for path in ("/", "/docs", "/metrics", "/openapi.json", "/report/first", "/nowhere"):
            assert code(client.get(path), 401) == "unauthorized"
        assert client.get("/health").status_code == client.get("/ready").status_code == 200


def test_other_origins_need_permission(connect, client, first):
    preflight = {
        "origin": "https://shop.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization",
    }
    assert "access-control-allow-origin" not in client.options("/v1/predict", headers=preflight).headers
    with connect(first=first, origins=("https://shop.example",), token="secret") as open_client:
        answer = open_client.options("/v1/predict", headers=preflight)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://shop.example")
        assert open_client.options("/v1/predict", headers=preflight | {"origin": "https://evil.example"}).status_code == 400


def test_figures_for_prometheus(connect, first):
    with connect(first=first) as client:
        client.post("/v1/predict", files=[("a", ("a.png", pictures(1)[0])), ("a", ("b.png", b"x"))])
        client.get("/nowhere")
        text = client.get("/metrics").text
    for line in (
        'crossroads_requests_total{path="/v1/predict",status="200"} 1.0',
        'crossroads_requests_total{path="other",status="404"} 1.0',
        'crossroads_images_total{model="first",outcome="predicted"} 1.0',
        'crossroads_images_total{model="first",outcome="refused"} 1.0',
        'crossroads_batch_seconds_count{model="first"}',
        "crossroads_waiting_images 0.0",
    ):
        assert line in text


def test_file_names_that_are_not_text_are_answered(client):
    head = b'--x\r\nContent-Disposition: form-data; name="a"; filename="\xff\xfe<b>.png"\r\n\r\n'
    answer = client.post(
        "/v1/predict",
        content=head + pictures(1)[0] + b"\r\n--x--\r\n",
        headers={"content-type": "multipart/form-data; boundary=x"},
    )
    assert json.loads(answer.content)["predictions"][0]["name"].endswith("<b>.png")


def test_an_explanation_has_a_heat_map_of_the_class(client):
    (picture,) = pictures(1)
    found = client.post("/v1/explain", content=picture, headers=OCTETS).json()
    assert (
        found["label"] == client.post("/v1/predict", content=picture, headers=OCTETS).json()["predictions"][0]["labels"][0]["label"]
    )
    assert found["method"] in ("cam", "reciprocam", "occlusion")
    kind, _, data = found["heat_map"].partition(",")
    assert kind == "data:image/jpeg;base64"
    assert base64.b64decode(data).startswith(b"\xff\xd8")
    assert found["neighbours"] == []
    other = client.post("/v1/explain?label=größer&model=second", content=picture, headers=OCTETS).json()
    assert (other["label"], other["model"]) == ("größer", "second")


def test_explanations_are_refused_for_the_same_reasons(client, connect, first):
    post = client.post
    assert code(post("/v1/explain", content=b"x", headers=OCTETS), 422) == "not-an-image"
    assert code(post("/v1/explain?label=none", content=pictures(1)[0], headers=OCTETS), 404) == "unknown-label"
    assert code(post("/v1/explain?lable=2", content=pictures(1)[0], headers=OCTETS), 400) == "unknown-parameter"
    assert code(post("/v1/explain", files=[("a", ("1", b"x")), ("a", ("2", b"x"))]), 400) == "several-images"
    with connect(first=first) as busy:
        busy.app.state.service.explanations._waiting = 8
        assert code(busy.post("/v1/explain", content=pictures(1)[0], headers=OCTETS), 503) == "busy"

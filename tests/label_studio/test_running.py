"""Tasks into a running Label Studio and labels out of it: none is lost, none changed. Run by `make test-label-studio`.

LABEL_STUDIO is the path of its executable. The server is on loopback, with its data in a temporary folder.
"""

import hashlib
import io
import json
import os
import socket
import subprocess
import time
import uuid
from collections import Counter
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from latent_al.labelling.answers import read_answers
from latent_al.labelling.classes import ClassNames
from latent_al.labelling.label_studio import labelling_config, tasks
from latent_al.runtime.files import write_json

pytestmark = pytest.mark.label_studio

CLASSES = ["cat", 'a "b" <c> & d\'s', "猫 é"]
PEOPLE = ("first@example.com", "second@example.com")
TOKENS = dict(zip(PEOPLE, ("0" * 40, "1" * 40), strict=True))
FOLDER = "my photos #1 & 100%"
NAMES = [
    "plain.png",
    "with space.png",
    " leading.png",
    "it's.png",
    'a "quote".png',
    "hash#tag.png",
    "50%.png",
    "%41.png",
    "a+b.png",
    "a&b=c.png",
    "what?.png",
    "semi;colon,comma.png",
    "back\\slash.png",
    "line\nfeed.png",
    "=1+1.png",
    "<b>.png",
    "ёлка.png",
    "猫/日本 語.png",
    "cafe\u0301.png",
    "..dots/x.png",
]
NAMES += [f"folder {index}/{index}.png" for index in range(len(NAMES), 72)]
FIRST, SECOND = range(60), range(60, 72)


class Server:
    """A Label Studio that has started, and how to ask it."""

    def __init__(self, address):
        self.address = address

    def ask(self, path, body=None, *, method=None, person=PEOPLE[0], content="application/json"):
        """The status and the body of the answer; `body` goes out as JSON unless it is bytes."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Authorization": f"Token {TOKENS[person]}", "Content-Type": content}
        request = Request(self.address + path, data, headers, method=method)
        try:
            with urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except HTTPError as error:
            with error:
                return error.code, error.read()

    def get(self, path, **settings):
        status, content = self.ask(path, **settings)
        assert status in (200, 201), (path, status, content[:500])
        return json.loads(content)

    def upload(self, project, path):
        """Imports a file as the page of the project does."""
        edge = uuid.uuid4().hex
        head = f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="{path.name}"\r\n\r\n'
        body = head.encode() + path.read_bytes() + f"\r\n--{edge}--\r\n".encode()
        content = f"multipart/form-data; boundary={edge}"
        return self.get(f"/api/projects/{project}/import", body=body, content=content)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The folder of images, below the document root."""
    folder = tmp_path_factory.mktemp("documents") / FOLDER
    for index, name in enumerate(NAMES):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (3 * index, 255 - 3 * index, 40)).save(path)
    return folder


@pytest.fixture(scope="module")
def table(root):
    """The images as a scan lists them."""
    digests = [hashlib.sha256((root / name).read_bytes()).hexdigest()[:32] for name in NAMES]
    return pd.DataFrame({"id": [f"sha256:{digest}" for digest in digests], "file_name": NAMES, "status": "present"})


@pytest.fixture(scope="module")
def server(root, tmp_path_factory):
    if "LABEL_STUDIO" not in os.environ:
        pytest.skip("LABEL_STUDIO is not set to the path of Label Studio's executable")
    folder = tmp_path_factory.mktemp("label_studio")
    settings = os.environ | {
        # It leaves a number of its own in the home, and --data-dir comes too late to keep it from making folders there.
        "HOME": str(folder),
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder),
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(root.parent),
        # Nothing is asked of or told to the world outside.
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
    }
    for person, token in TOKENS.items():
        user = ["--username", person, "--password", "only a test", "--user-token", token, "--enable-legacy-api-token"]
        made = [os.environ["LABEL_STUDIO"], "init", "--quiet", *user]
        subprocess.run(made, env=settings, cwd=folder, check=True, capture_output=True, timeout=600)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = [os.environ["LABEL_STUDIO"], "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(start, env=settings, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield wait_for(Server(f"http://127.0.0.1:{port}"), process, folder / "server.log")
    finally:
        process.terminate()
        process.wait(timeout=60)


def wait_for(server, process, log):
    for _ in range(300):
        if process.poll() is not None:
            break
        try:
            server.ask("/health")
            return server
        except URLError:
            time.sleep(1)
    raise AssertionError(log.read_text()[-2000:])


@pytest.fixture(scope="module")
def project(server, root):
    made = server.get("/api/projects/", body={"title": "photos", "label_config": labelling_config(CLASSES)})
    assert made["parsed_label_config"]["choice"]["labels"] == CLASSES
    storage = {"project": made["id"], "title": "photos", "path": str(root), "use_blob_urls": True}
    server.get("/api/storages/localfiles", body=storage)
    return made["id"]


def queries(table, ranks, num_predicted):
    """The queries of a round over the rows `ranks` of the table."""
    own = table.iloc[list(ranks)]
    predicted = np.arange(len(own)) < num_predicted
    return own.assign(
        rank=np.arange(len(own)),
        reason="uncertain",
        prediction=[CLASSES[rank % 3] if known else "" for rank, known in zip(ranks, predicted, strict=True)],
        confidence=np.where(predicted, 0.5, np.nan),
    )


@pytest.fixture(scope="module")
def imported(server, project, table, tmp_path_factory):
    """Both rounds in one project: our id -> the task as the server gives it."""
    for index, (ranks, num_predicted) in enumerate([(FIRST, 20), (SECOND, 12)]):
        batch = queries(table, ranks, num_predicted)
        path = tmp_path_factory.mktemp("round") / "label_studio.json"
        write_json(path, tasks(batch, root_name=FOLDER, round_index=index, classes=CLASSES))
        counts = server.upload(project, path)
        assert (counts["task_count"], counts["prediction_count"]) == (len(ranks), num_predicted)
    found = server.get(f"/api/tasks?project={project}&page_size=200&fields=all")["tasks"]
    return {task["data"]["latent_al_id"]: task for task in found}


@pytest.fixture(scope="module")
def answered(server, table, imported):
    """The answers of people as (id, label or None, annotator), the last one of each person."""
    people = {person: str(server.get("/api/current-user/whoami", person=person)["id"]) for person in PEOPLE}
    said = {}

    def say(row, label, person=PEOPLE[0]):
        choice = {"from_name": "choice", "to_name": "image", "type": "choices", "value": {"choices": [label]}}
        body = {"result": [] if label is None else [choice], "was_cancelled": label is None, "lead_time": 1.5}
        key = table.id[row], people[person]
        if key in said:
            server.get(f"/api/annotations/{said[key][0]}/", body=body, method="PATCH", person=person)
            said[key] = said[key][0], label
        else:
            made = server.get(f"/api/tasks/{imported[table.id[row]]['id']}/annotations/", body=body, person=person)
            said[key] = made["id"], label

    for row in [*range(35), *range(60, 66)]:
        say(row, CLASSES[row % 3])
    for row in range(10):
        say(row, CLASSES[(row + 1) % 3])
    for row in range(20, 28):
        say(row, CLASSES[row // 2 % 3], person=PEOPLE[1])
    for row in [*range(35, 45), 66]:
        say(row, None)
    say(28, None, person=PEOPLE[1])
    return [(name, label, annotator) for (name, annotator), (_, label) in said.items()]


def test_every_task_arrives_with_its_data_and_its_prediction(table, imported):
    assert imported.keys() == set(table.id)
    for row, (name, file_name) in enumerate(zip(table.id, table.file_name, strict=True)):
        data, predictions = imported[name]["data"], imported[name]["predictions"]
        assert (data["file_name"], data["rank"]) == (file_name, row if row in FIRST else row - SECOND.start)
        expected = [[CLASSES[row % 3]]] if row in range(20) or row in SECOND else []
        assert [each["result"][0]["value"]["choices"] for each in predictions] == expected
        version = "latent_al-r000" if row in FIRST else "latent_al-r001"
        assert {(each["score"], each["model_version"]) for each in predictions} <= {(0.5, version)}


def test_the_server_shows_every_image_at_its_address(server, root, imported):
    for task in imported.values():
        status, content = server.ask(task["data"]["image"])
        assert (status, content) == (200, (root / task["data"]["file_name"]).read_bytes()), task["data"]
        assert Image.open(io.BytesIO(content)).size == (8, 8)


@pytest.mark.parametrize("kind", ["JSON", "JSON_MIN", "CSV"])
def test_what_people_said_comes_back(server, project, table, answered, tmp_path, kind):
    status, content = server.ask(f"/api/projects/{project}/export?exportType={kind}&download_all_tasks=true")
    assert status == 200
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / f"export.{'csv' if kind == 'CSV' else 'json'}").write_bytes(content)
    answers, refusals = read_answers(tmp_path, table, ClassNames(CLASSES, {}, is_fixed=True))
    assert refusals == []
    expected = answered if kind == "JSON" else [each for each in answered if each[1] is not None]
    assert len(expected) == (61 if kind == "JSON" else 49)
    assert Counter((each.id, each.label, each.annotator) for each in answers) == Counter(expected)
    assert all(each.time for each in answers)


def test_a_config_without_classes_is_not_accepted_as_it_is(server):
    body = {"title": "open", "label_config": labelling_config([])}
    status, content = server.ask("/api/projects/", body)
    assert (status, b"'Choice' is a required property" in content) == (400, True)

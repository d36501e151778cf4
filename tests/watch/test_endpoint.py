"""POST /watch: the events of `watch`, as they are found; and films that nobody would want to be sent."""

import contextlib
import http.client
import io
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil
import pytest
from PIL import Image

from classifier.bundle.predictor import Predictor
from classifier.serve.guard import Guard
from classifier.serve.keys import Keys, add_key
from classifier.serve.registry import Source
from classifier.watch.endpoint.film_job import FilmBounds
from classifier.watch.endpoint.route import FilmRoutes
from classifier.watch.observer import Region
from tests.export.conftest import gate as gate
from tests.export.conftest import waves as waves
from tests.serve.conftest import Running, encode, start, stop
from tests.serve.conftest import bundle as bundle
from tests.watch.conftest import CLASSES, ColourModel, draw_frame, encode_stream, write_film
from tests.watch.test_watcher import SCENES, watch

SECONDS = 120.0
"""For the slowest machine: each film starts a process."""


class Named(Predictor):
    """The server's model, with the names of those that watch films here."""

    @property
    def class_names(self) -> tuple[str, ...]:
        return CLASSES


def open_colours(path: Path) -> ColourModel:
    return ColourModel()


def open_slow(path: Path) -> ColourModel:
    model = ColourModel()
    model.seconds = 0.2
    return model


def open_crash(path: Path) -> ColourModel:
    os.abort()


@contextlib.contextmanager
def serve(
    bundle: Path, open_predictor: Callable[[Path], Predictor] = open_colours, guard: Guard | None = None, **bounds: Any
) -> Iterator[Running]:
    server = start([Source("colours", bundle)], open_predictor=lambda path: Named(path, threads=1), guard=guard)
    FilmRoutes(server.app, FilmBounds(**bounds), open_predictor)
    try:
        yield server
    finally:
        if server.thread.is_alive():
            stop(server)


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Running]:
    with serve(bundle, at_once=2, film_bytes=1 << 20, max_pixels=1 << 20) as running:
        yield running


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("film") / "scenes.mp4"
    write_film(path, SCENES)
    return path


def send(server: Running, content: bytes, *alerts: str, **parameters: Any) -> tuple[int, Any]:
    """Send a film; return the status, and the lines or the error."""
    query = urlencode([*(("alert", one) for one in alerts), *parameters.items()])
    client = Client(server, f"/watch?{query}", len(content))
    client.send(content)
    response = client.answer()
    status, kind, body = response.status, response.headers["content-type"], response.read()
    client.close()
    if status != 200:
        return status, json.loads(body)["error"]
    assert kind.startswith("application/x-ndjson")
    return status, [json.loads(line) for line in body.splitlines()]


def compare(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in ("id", "time", "source")}


class Client:
    """A client that sends its film in parts, while it reads the answer."""

    def __init__(self, server: Running, path: str = "/watch", length: int | None = None) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SECONDS)
        self.response: http.client.HTTPResponse | None = None
        self.connection.putrequest("POST", path)
        self._is_chunked = length is None
        name, value = ("Transfer-Encoding", "chunked") if length is None else ("Content-Length", str(length))
        self.connection.putheader(name, value)
        self.connection.endheaders()

    def send(self, part: bytes) -> None:
        self.connection.send(b"%x\r\n%b\r\n" % (len(part), part) if self._is_chunked else part)

    def answer(self) -> http.client.HTTPResponse:
        self.response = self.connection.getresponse()
        return self.response

    def close(self) -> None:
        if self.response:
            self.response.close()
        self.connection.close()


def read_lines(response: http.client.HTTPResponse) -> list[dict[str, Any]]:
    return [json.loads(line) for line in response.read().splitlines()]


def films() -> list[psutil.Process]:
    """The processes of films."""
    found = []
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie, too
            if "spawn_main" in str(process.cmdline()):
                found.append(process)
    return found


def wait_for(condition: Callable[[], Any], seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("alerts", "settings"),
    [
        (["red > 0.8 for 2s", "blue > 0.8 until < 0.2"], {"half_life": 0.0}),
        (["not sure for 1s", "unlike anything seen for 600ms"], {"half_life": 0.5}),
        ([], {"half_life": 0.0, "motion": 8.0, "region": "0,0.5,1,0.5"}),
    ],
)
def test_events_are_those_of_watch(
    alerts: Sequence[str], settings: dict[str, Any], server: Running, film: Path, model: ColourModel
):
    status, lines = send(server, film.read_bytes(), *alerts, fps=10, **settings)
    own: dict[str, Any] = settings | ({"region": Region.parse(settings["region"])} if "region" in settings else {})
    expected, counts = watch(film, model, *alerts, fps=10.0, **own)
    assert status == 200
    assert len(expected) > 3
    assert [compare(event) for event in lines[:-1]] == [compare(event) for event in expected]
    numbers = {name: getattr(counts, name) for name in ("frames", "damaged", "unchanged", "answered", "alerts")}
    about = {"model": "colours", "version": "1", "bundle": server.app.registry.models["colours"].current.bundle}
    assert lines[-1] == {"event": "finished"} | about | numbers
    wait_for(lambda: server.lines("request")[-1].get("answered") == counts.answered)
    logged = server.lines("request")[-1]
    assert (logged["route"], logged["model"], logged["bytes"]) == ("/watch", "colours", film.stat().st_size)


def test_events_come_while_the_film_is_sent(server: Running):
    """In chunks, and with a length; in a format that is read from its start."""
    parts = encode_stream([("grey", 1.0), ("red", 1.0), ("grey", 2.0)])
    half, whole = b"".join(parts[:50]), b"".join(parts)
    for length in (None, len(whole)):
        client = Client(server, "/watch/colours?alert=red+%3E+0.8&half_life=0", length)
        client.send(half)
        response = client.answer()
        first = json.loads(response.readline())
        assert (first["event"], first["seconds"]) == ("alert", 1.0)
        client.send(whole[len(half) :])
        if length is None:
            client.send(b"")
        ended, last = read_lines(response)
        assert (ended["event"], ended["seconds"], last["event"], last["frames"]) == (
            "alert_ended",
            2.0,
            "finished",
            100,
        )
        client.close()


def encode_jpeg(colour: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(draw_frame(colour, 0)).save(stream, "JPEG")
    return stream.getvalue()


def test_motion_jpeg(server: Running):
    """Of a file at 25 frames a second; of a stream, as its frames come."""
    red, blue = encode_jpeg("red"), encode_jpeg("blue")
    status, lines = send(server, red * 50 + blue * 50, half_life=0)
    assert status == 200
    assert [(one["answer"], one["seconds"]) for one in lines[:-1]] == [("red", 0.0), ("blue", 2.0)]
    client = Client(server, "/watch?half_life=0&fps=100")
    parts = [
        b"--cut\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(jpeg), jpeg)
        for jpeg in [red] * 20 + [blue] * 20
    ]
    client.send(parts[0])
    response = client.answer()
    assert json.loads(response.readline())["answer"] == "red"
    for part in parts[1:]:
        time.sleep(0.1)
        client.send(part)
    client.send(b"")
    second, last = read_lines(response)
    client.close()
    assert (second["answer"], last["event"], last["frames"]) == ("blue", "finished", 40)
    assert second["seconds"] == pytest.approx(2.0, abs=1.0)


@pytest.mark.parametrize(
    ("query", "headers", "expected"),
    [
        ("alert=elephant+%3E+0.5", {}, (400, "alert 'elephant > 0.5': the model has no class 'elephant'")),
        ("alert=red", {}, (400, "alert 'red' compares with no number")),
        ("alerts=red", {}, (400, "'alerts' is unknown; did you mean alert?")),
        ("colour=red", {}, (400, "'colour' is unknown: there are alert, fps, half_life, motion, region and version")),
        ("fps=0", {}, (400, "fps is a number from 0.001 to 1000")),
        ("half_life=nan", {}, (400, "half_life is a number")),
        ("motion=x", {}, (400, "motion is a number from 0 to 255")),
        ("motion=1&motion=2", {}, (400, "motion is given twice")),
        ("region=0,0,2,1", {}, (400, "region '0,0,2,1' is no part of a frame")),
        ("&".join(["alert=red+%3E+0.5"] * 33), {}, (400, "33 alerts are more than 32")),
        ("version=9", {}, (404, "no such version")),
        ("", {"content_encoding": "gzip"}, (415, "compressed")),
        ("", {"content_type": "multipart/form-data; boundary=x"}, (415, "send the bytes of one film")),
        ("", {"origin": "http://evil.example"}, (403, "other origins")),
        ("", {"host": "evil.example"}, (421, "localhost")),
    ],
)
def test_a_wrong_request_is_refused_before_it_is_read(
    query: str, headers: dict[str, str], expected: tuple[int, str], server: Running
):
    before = films()
    status, answer, _ = server.ask(f"/watch?{query}", b"film", **headers)
    assert status == expected[0]
    assert expected[1] in answer["error"]
    assert set(films()) <= set(before)


def make_films(film: Path) -> dict[str, tuple[bytes, str]]:
    content = film.read_bytes()
    sound = io.BytesIO()
    large = io.BytesIO()
    Image.new("RGB", (2000, 1000)).save(large, "JPEG")
    Image.new("RGB", (8, 8)).save(sound, "PNG")
    return {
        "empty": (b"", "cannot be read as a video"),
        "nonsense": (b"nonsense" * 1000, "cannot be read as a video"),
        "cut": (content[: len(content) // 2], "cannot be read as a video"),
        "no film": (sound.getvalue(), "cannot be read as a video"),
        "large frames": (large.getvalue() * 3, "2000 x 1000 pixels, more than data.max_pixels"),
        "a playlist": (f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:4,\n{film}\n#EXT-X-ENDLIST\n".encode(), "cannot be"),
        "a list": (f"ffconcat version 1.0\nfile {film}\n".encode(), "cannot be read as a video"),
        "an SDP": (b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n", "cannot be"),
    }


@pytest.mark.parametrize(
    "name", ["empty", "nonsense", "cut", "no film", "large frames", "a playlist", "a list", "an SDP"]
)
def test_what_is_no_film_is_refused(name: str, server: Running, film: Path):
    content, said = make_films(film)[name]
    status, error = send(server, content)
    assert status == 422
    assert said in error
    assert str(film) not in error


def test_a_film_that_is_cut_is_watched_to_its_end(server: Running):
    content = b"".join(encode_stream([("red", 2.0)]))
    status, lines = send(server, content[: len(content) * 2 // 3])
    assert status == 200
    assert lines[-1]["event"] == "finished"
    assert 20 < lines[-1]["frames"] < 45


def test_a_film_may_be_too_large(server: Running):
    status, error = send(server, b"x" * (1 << 20) + b"x")
    assert (status, error) == (413, "the film has more than 1,048,576 bytes: send a shorter or smaller one")
    parts = encode_stream([("red", 1.0)])
    client = Client(server)
    client.send(b"".join(parts))
    response = client.answer()
    assert json.loads(response.readline())["answer"] == "red"
    with contextlib.suppress(OSError):
        for _ in range(20):
            client.send(b"\0" * 100_000)
    [last] = read_lines(response)
    assert (last["event"], last["error"]) == ("failed", error)
    client.close()


def test_more_films_than_are_taken_come_later(server: Running, film: Path):
    clients = [Client(server) for _ in range(2)]
    for client in clients:
        client.send(b"".join(encode_stream([("red", 1.0)])))
        assert json.loads(client.answer().readline())["answer"] == "red"
    status, answer, headers = server.ask("/watch", film.read_bytes())
    assert (status, headers["retry-after"]) == (429, "10")
    assert answer["error"] == "2 films are being watched already: try again later"
    assert "classifier_films_in_progress 2.0" in server.ask("/metrics")[1].decode()
    for client in clients:  # who goes away makes room
        client.close()
    wait_for(lambda: not films())
    wait_for(lambda: "classifier_films_in_progress 0.0" in server.ask("/metrics")[1].decode())
    assert send(server, film.read_bytes())[0] == 200
    assert "\nclassifier_watch_frames_total " in server.ask("/metrics")[1].decode()


def test_a_process_that_is_killed_ends_its_film_alone(server: Running):
    client = Client(server)
    client.send(b"".join(encode_stream([("red", 1.0)])))
    response = client.answer()
    assert json.loads(response.readline())["answer"] == "red"
    [process] = films()
    process.kill()
    [last] = read_lines(response)
    assert last["event"] == "failed"
    assert "the process that watches the film has ended" in last["error"]
    assert last["bundle"]
    client.close()
    assert server.ask("/predict", encode())[0] == 200
    [*_, logged] = server.lines("film_failed")
    assert logged["error"] == last["error"]


def test_the_model_on_disk_is_another_one(server: Running, film: Path):
    version = server.app.registry.models["colours"].current
    before, version.digest = version.digest, "another"
    try:
        status, error = send(server, film.read_bytes())
    finally:
        version.digest = before
    assert status == 409
    assert "has changed on disk" in error


@pytest.mark.long
def test_a_crash_and_the_time_limits(bundle: Path, film: Path):
    with serve(bundle, open_crash) as server:
        status, error = send(server, film.read_bytes())
        assert status == 422
        assert "has ended, by a crash" in error
        assert server.ask("/predict", encode())[0] == 200
    with serve(bundle, open_slow, seconds=10.0, silent_seconds=1.0) as server:
        silent = Client(server)
        silent.send(b"film")
        response = silent.answer()
        assert response.status == 408
        assert "nothing of the film has come for 1 second" in json.loads(response.read())["error"]
        silent.close()
        status, lines = send(server, film.read_bytes(), fps=25)
        assert status == 200
        assert lines[-1]["event"] == "failed"
        assert "the film was not watched within 10 seconds" in lines[-1]["error"]


@pytest.mark.long
def test_after_one_film_there_is_room_for_the_next(bundle: Path, film: Path):
    with serve(bundle) as server:
        assert [send(server, film.read_bytes())[0] for _ in range(3)] == [200] * 3
        assert [send(server, b"no film")[0] for _ in range(2)] == [422] * 2
        assert films() == []


@pytest.mark.long
def test_a_server_that_stops_says_so(bundle: Path):
    with serve(bundle) as server:
        client = Client(server)
        client.send(b"".join(encode_stream([("red", 1.0)])))
        response = client.answer()
        assert json.loads(response.readline())["answer"] == "red"
        stop(server)
        [last] = read_lines(response)
        client.close()
        assert (last["event"], last["error"]) == ("failed", "the server is stopping: send the film again")
        assert films() == []


@pytest.mark.long
def test_keys_and_the_description(bundle: Path, film: Path, tmp_path: Path):
    secret = add_key(tmp_path / "keys", "ann", "predict")
    with serve(bundle, guard=Guard(Keys.read(tmp_path / "keys"))) as server:
        assert server.ask("/watch", film.read_bytes())[0] == 401
        key = f"Bearer {secret}"
        assert server.ask("/watch", film.read_bytes(), authorization=key)[0] == 200
        wait_for(lambda: server.lines("request")[-1]["status"] == 200)
        assert server.lines("request")[-1]["key"] == "ann"
        paths = server.ask("/openapi.json", authorization=key)[1]["paths"]
        assert {"/watch", "/watch/{model}"} <= paths.keys()
        assert "429" in paths["/watch/{model}"]["post"]["responses"]


def test_films_are_off_unless_they_are_asked_for(bundle: Path):
    running = start([Source("colours", bundle)])
    try:
        assert running.ask("/watch", b"film")[0] == 404
        assert "/watch" not in running.ask("/openapi.json")[1]["paths"]
    finally:
        stop(running)

"""Sources that cannot be used, or should not be: one sentence, and no secret in it."""

import contextlib
import functools
import http.server
import itertools
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from classifier.errors import ConfigError, DataError
from classifier.watch.sources.address import check_url, hide_credentials, parse_address
from classifier.watch.sources.video import Video
from tests.watch.conftest import write_film


def open_and_read(path: Path | str, max_pixels: int = 1 << 24) -> int:
    with Video(parse_address(str(path)), max_pixels, 1.0) as video:
        return len(list(video.frames()))


def test_broken_films(tmp_path: Path):
    film = tmp_path / "film.mp4"
    write_film(film, [("red", 2.0)])
    assert open_and_read(film) == 50
    whole = film.read_bytes()
    (tmp_path / "named.mp4").write_bytes(whole.replace(b"VideoHandler", b"Video\xff\xfendler"))  # no UTF-8
    assert open_and_read(tmp_path / "named.mp4") == 50
    (tmp_path / "nonsense.mp4").write_bytes(b"nonsense" * 1000)
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    for name in ("nonsense.mp4", "empty.mp4", "cut.mp4"):
        with pytest.raises(DataError, match=f"{name} cannot be read as a video"):
            open_and_read(tmp_path / name)
    with pytest.raises(DataError, match=r"64 x 48 pixels, more than data.max_pixels 3,000"):
        open_and_read(film, 3000)
    with av.open(str(tmp_path / "sound.wav"), "w") as sound:
        sound.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound.start_encoding()
    with pytest.raises(DataError, match=r"sound.wav has no video"):
        open_and_read(tmp_path / "sound.wav")


def test_the_end_of_a_stream_may_be_missing(tmp_path: Path):
    write_film(tmp_path / "film.ts", [("red", 2.0)], "mpegts")
    content = (tmp_path / "film.ts").read_bytes()
    (tmp_path / "cut.ts").write_bytes(content[: len(content) * 2 // 3])
    assert 20 < open_and_read(tmp_path / "cut.ts") < 45


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:4,\n{film}\n#EXT-X-ENDLIST\n"),
        ("list.ffconcat", "ffconcat version 1.0\nfile {film}\n"),
        ("list.mp4", "ffconcat version 1.0\nfile file:{film}\n"),
    ],
)
def test_a_playlist_opens_no_file(name: str, text: str, tmp_path: Path):
    write_film(tmp_path / "film.ts", [("red", 1.0)], "mpegts")
    (tmp_path / name).write_text(text.format(film=tmp_path / "film.ts"))
    with pytest.raises(DataError, match="cannot be read as a video"):
        open_and_read(tmp_path / name)


def test_a_playlist_of_a_server_opens_no_file(tmp_path: Path, live):
    write_film(tmp_path / "film.ts", [("red", 1.0)], "mpegts")
    source = live([("red", 0.1)])
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:4,\nfile://{tmp_path}/film.ts\n#EXT-X-ENDLIST\n"
    source.packets = [playlist.encode()]
    with pytest.raises(DataError, match="cannot be opened"):
        open_and_read(source.url.replace(".ts", ".m3u8"))


def test_credentials_are_hidden():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(DataError, match=rf"http://127.0.0.1:{port}/x cannot be opened \(it sent nothing for 1 s\)"):
            open_and_read(f"http://ann:secret@127.0.0.1:{port}/x?token=secret")
    for scheme in ("http", "rtsp"):
        with pytest.raises(DataError, match="Connection refused") as error:
            open_and_read(f"{scheme}://ann:secret@127.0.0.1:{port}/x?token=secret")
        assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://cam:554/live", "rtsp://cam:554/live"),
        ("RTSP://ann:p@ss@cam/live#x", "rtsp://cam/live"),
        ("rtsp://ann:p@ss/w?rd@cam/live#x", "rtsp://..."),
        ("http://cam/mjpg?user=ann@home.org&pwd=secret", "http://..."),
        ("rtsp://cam/user=a&password=p@ss", "rtsp://..."),
        ("https://cam&token=1/live", "https://..."),
        ("rtsp://cam/user=ann&password=b&channel=1", "rtsp://cam/..."),
        ("https://cam?token=1", "https://cam"),
    ],
)
def test_what_is_shown_of_a_url(url: str, shown: str):
    assert hide_credentials(url) == shown


@pytest.mark.parametrize(
    ("word", "said"),
    [("absent.mp4", "absent.mp4 cannot be opened"), ("ftp://host/film", "ftp:// is not supported"), ("\0", "no path")],
)
def test_what_is_no_source(word: str, said: str):
    with pytest.raises((ConfigError, DataError), match=said):
        parse_address(word)


@pytest.mark.parametrize(
    "url", ["", "host/hook", "ftp://host", "file:///etc/passwd", "http://", "http://h:x/", "http://h/ a"]
)
def test_what_is_no_web_address(url: str):
    with pytest.raises(ConfigError, match="--webhook is no web address"):
        check_url(url, "webhook")


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object, **__: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_a_film_elsewhere_is_read_whole(tmp_path: Path):
    write_film(tmp_path / "film.mp4", [("red", 2.0)], movflags="faststart")
    with serve(tmp_path) as url, Video(parse_address(f"{url}/film.mp4"), 1 << 24, 5.0) as video:
        assert not video.is_live
        assert len(list(video.frames())) == 50


def test_segments_may_be_far_apart(tmp_path: Path):
    """Of HLS: the second one comes after two seconds, when a stream of another kind were lost after one."""
    write_film(tmp_path / "0.ts", [("red", 2.0)], "mpegts")
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n0.ts\n"
    (tmp_path / "live.m3u8").write_text(playlist)
    with serve(tmp_path) as url, Video(parse_address(f"{url}/live.m3u8"), 1 << 24, 1.0) as video:
        assert video.is_live
        (tmp_path / "live.m3u8").write_text(f"{playlist}#EXTINF:2,\n0.ts\n")
        assert len(list(itertools.islice(video.frames(), 60))) == 60

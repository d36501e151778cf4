"""A run's name in storage belongs to one machine, whoever else wants it at the same time."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from classifier.storage.bucket import Storage


@pytest.fixture(params=["local", "s3"])
def uri(request, tmp_path) -> str:
    if request.param == "local":
        return str(tmp_path / "far")
    bucket, rest = request.getfixturevalue("bucket")
    return f"{bucket}/runs{rest}"


def test_a_name_is_claimed_once(uri, tmp_path):
    assert Storage.list_runs(uri) == []
    storage = Storage.from_uri(uri, "photos-1")
    assert storage.claim()
    assert not storage.claim()
    assert Storage.from_uri(uri, "photos-2").claim()
    assert sorted(Storage.list_runs(uri)) == ["photos-1", "photos-2"]
    (tmp_path / "file").write_text("here")
    other = Storage.from_uri(uri, "photos-3")
    other.upload(tmp_path / "file", "run.log")
    assert not other.claim()
    assert list(other.files()) == ["run.log"]
    storage.remove("")
    assert storage.claim()


def test_of_machines_that_claim_a_name_at_once_at_most_one_gets_it(uri):
    machines = 4
    ready = threading.Barrier(machines)

    def claim(n: int) -> bool:
        storage = Storage.from_uri(uri, f"photos-{n}")
        ready.wait()
        return storage.claim()

    with ThreadPoolExecutor(machines) as pool:
        for n in range(10):
            assert sum(pool.map(claim, [n] * machines)) <= 1

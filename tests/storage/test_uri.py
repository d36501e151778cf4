"""URIs of remote storage: no secret is printed, and no document names the server that is asked."""

import pytest

from classifier.errors import ConfigError, RunError
from classifier.storage.uri import is_remote, open_filesystem, refuse_credentials, refuse_endpoint

SECRETS = ("s3://AKIA:sec/ret@b", "s3://AKIA:pass@b/x", "s3://AKIA@b", "s3://AKIA:12/pass@b", "gs://AKIA:/pass@b")


@pytest.mark.parametrize("uri", SECRETS)
def test_credentials_are_refused_and_not_printed(uri, tmp_path):
    with pytest.raises(ConfigError) as error:
        open_filesystem(uri, "--storage")
    assert str(error.value).startswith("--storage contains credentials")
    assert not any(part in str(error.value) for part in ("AKIA", "pass", "sec/ret", "://"))
    with pytest.raises(ConfigError, match=r"^the URI in e\.yaml contains credentials: [^:]*$"):
        refuse_endpoint(f"{uri}?endpoint_override=evil.com", "e.yaml", "--data")


@pytest.mark.parametrize("uri", ["s3://b/user@host", "hdfs://host:8020/a@b", "gs://b/c:d@e", "/a@b", "a:b@c"])
def test_other_uris_with_such_characters_are_not(uri):
    refuse_credentials(uri, "--storage")


def test_documents_name_no_server():
    with pytest.raises(RunError, match="name it by --data"):
        refuse_endpoint("s3://bucket/x?endpoint_override=evil.com", "runs/a/experiment.yaml", "--data")
    for path in ("s3://bucket/x", "photos?", "C:\\photos"):
        refuse_endpoint(path, "e.yaml", "--data")


def test_what_is_remote():
    remote = ("s3://b", "gs://b", "hdfs://h/x", "\\\\server\\share", "//server/share", "file:///x")
    assert all(map(is_remote, remote))
    assert not any(map(is_remote, ("photos", "/a/b", "C:\\x", "../x", "digits")))

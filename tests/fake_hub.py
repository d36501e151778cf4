"""A hub of pretrained weights on this machine: a server, one that is gone, and one that never answers."""

import hashlib
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write_weights(name: str, path: Path, *, scale: float = 1.0) -> Path:
    """Random weights of timm/NAME, as the hub has them."""
    torch.manual_seed(0)
    state = timm.create_model(name.removeprefix("timm/")).state_dict()
    save_file({key: tensor * scale for key, tensor in state.items()}, path)
    return path


@contextmanager
def serve_hub(files: dict[str, Path]) -> Iterator[str]:
    """Serve model.safetensors of each of these models; yields the address."""
    with _serve(
        {f"/{name}/resolve/main/model.safetensors": path.read_bytes() for name, path in files.items()}
    ) as address:
        yield address


@contextmanager
def serve_repository(name: str, folder: Path) -> Iterator[str]:
    """Serve all files of a folder as the repository of this name; yields the address."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    about = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]}
    contents = {f"/{name}/resolve/{COMMIT}/{file}": content for file, content in files.items()}
    tree = [{"type": "file", "path": file, "size": len(content), "oid": "0"} for file, content in files.items()]
    contents[f"/api/models/{name}/revision/main"] = json.dumps(about).encode()
    contents[f"/api/models/{name}/tree/{COMMIT}"] = json.dumps(tree).encode()
    with _serve(contents) as address:
        yield address


@contextmanager
def _serve(contents: dict[str, bytes]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.wfile.write(self.answer())

        def answer(self) -> bytes:
            content = contents.get(self.path.partition("?")[0])
            self.send_response(200 if content is not None else 404)
            self.send_header("Content-Length", str(len(content or b"")))
            self.send_header("ETag", f'"{hashlib.sha256(content or b"").hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            if content is None and self.path.startswith("/api/"):
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            return content or b""

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def swallow() -> Iterator[str]:
    """An address where connections are made and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def find_closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def use_hub(monkeypatch: pytest.MonkeyPatch, address: str, cache: Path) -> None:
    """Make huggingface_hub ask this address, here and in the processes that are started from here."""
    from huggingface_hub import constants

    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def fill_cache(cache: Path, name: str, file: Path) -> None:
    """Put a file into a cache of the hub as a download does."""
    repository = cache / f"models--{name.replace('/', '--')}"
    for folder in ("refs", f"snapshots/{COMMIT}"):
        (repository / folder).mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text(COMMIT)
    shutil.copy(file, repository / "snapshots" / COMMIT / "model.safetensors")

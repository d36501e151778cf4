"""Bundles in the Hugging Face hub, whose repositories hold what a bundle folder does: hf://OWNER/NAME[@REVISION].

Where the hub and its cache are, and whether it may be asked, is huggingface_hub's business (HF_ENDPOINT, HF_HOME,
HF_HUB_OFFLINE). Only the files of a bundle are downloaded, and none of them holds code.
"""

import re
from pathlib import Path

from classifier.errors import ModelError, RunError, in_short

# A Path has made one slash of two.
_ADDRESS = re.compile(r"hf://?([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
_FILES = ("bundle.json", "*.safetensors", "onnx/*", "openvino/*")


def is_hub_address(path: str | Path) -> bool:
    return str(path).startswith("hf:")


def download_bundle(address: str) -> Path:
    """Return the folder of a repository's bundle in the hub's cache, downloaded unless it is there.

    RunError if the address is none, or the hub cannot be reached, or has no such repository; ModelError if
    huggingface_hub is not installed.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise RunError(f"{address} is no address of a bundle: write hf://OWNER/NAME or hf://OWNER/NAME@REVISION")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
    except ImportError:
        raise ModelError(f"{address}: this needs huggingface_hub: pip install huggingface_hub") from None
    repository, revision = match.groups()
    try:
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=list(_FILES)))
    except RepositoryNotFoundError:
        raise RunError(f"{address}: the hub has no such repository, or it is private (hf auth login)") from None
    except RevisionNotFoundError:
        raise RunError(f"{address}: its repository has no revision {revision}") from None
    except Exception as error:  # whatever the client raises where there is no network, no answer or no space
        raise RunError(f"{address} cannot be downloaded ({in_short(error, 160)})") from None
    if not (folder / "bundle.json").is_file():
        raise RunError(f"{address}: its repository is no bundle, as it has no bundle.json")
    return folder

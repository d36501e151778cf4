"""Weights of timm's models in the Hugging Face hub: found in its cache, or downloaded within a stated time.

Where the hub and its cache are, and whether the hub may be asked at all, is huggingface_hub's business (HF_ENDPOINT,
HF_HOME, HF_HUB_OFFLINE). A file that is in the cache is used as it is, so that a run that is resumed has the same one.
"""

import contextlib
import subprocess
import sys
import threading
from pathlib import Path

from torch import Tensor

from classifier.models.external import import_timm
from classifier.models.weights_file import read_weights

_SAFE_FILES = {"pytorch_model.bin": "model.safetensors", "open_clip_pytorch_model.bin": "open_clip_model.safetensors"}
# How long the hub may take to answer where there is nothing to go on with instead.
_PATIENCE_SECONDS = 10.0
# In a process of its own, which can be ended: a thread that downloads cannot.
_DOWNLOAD = "import sys; from huggingface_hub import hf_hub_download; hf_hub_download(*sys.argv[1:])"


def find_hub_weights(name: str) -> Path | None:
    """Return the .safetensors file of timm/NAME in the hub's cache, or None if it is not there. Asks no network."""
    from huggingface_hub import try_to_load_from_cache

    where = _locate(name)
    path = try_to_load_from_cache(*where) if where is not None else None
    return Path(path) if isinstance(path, str) else None


def is_offline() -> bool:
    """Whether the user has forbidden huggingface_hub to ask the network."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def is_in_reach(name: str, seconds: float) -> bool:
    """Whether the hub answers within so many seconds when asked for the weights of timm/NAME."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import HfHubHTTPError

    where, answers = _locate(name), list[object]()
    if where is None:
        return False

    def ask() -> None:
        try:
            answers.append(get_hf_file_metadata(hf_hub_url(*where), timeout=seconds))
        except HfHubHTTPError as answer:  # it has no such file, for example
            answers.append(answer)
        except Exception:  # whatever the client raises where there is no network or no answer
            return

    # The client's own timeout holds for each address and each part of the exchange, and not for the name's resolution.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answers)


def download_hub_weights(name: str, seconds: float) -> Path | None:
    """Download the .safetensors file of timm/NAME into the hub's cache; None if it failed or took longer.

    What has arrived by then stays in the cache, and the next download goes on from there.
    """
    where = _locate(name)
    if where is None:
        return None
    command = [sys.executable, "-P", "-c", _DOWNLOAD, *where]  # -P: no module of the working directory
    with contextlib.suppress(subprocess.TimeoutExpired, OSError):
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False)
    return find_hub_weights(name)


def load_hub_weights(name: str) -> dict[str, Tensor]:
    """Load the published weights of timm/NAME, from the hub's cache or else by timm's own download, which fills it.

    No code in them is executed. ModelError if the file in the cache is damaged; where the download fails, raises
    whatever timm raises.
    """
    file = find_hub_weights(name)
    if file is None and _locate(name) is not None and not is_offline() and not is_in_reach(name, _PATIENCE_SECONDS):
        raise ConnectionError("the Hugging Face hub cannot be reached")  # timm would try for a minute
    overlay = {} if file is None else {"state_dict": read_weights(str(file)).tensors}
    create = import_timm(name).create_model
    return dict(create(name.removeprefix("timm/"), pretrained=True, pretrained_cfg_overlay=overlay).state_dict())


def _locate(name: str) -> tuple[str, str] | None:
    """Return the repository and the .safetensors file of timm/NAME; None if its weights are elsewhere, or pickled."""
    config = import_timm(name).get_pretrained_cfg(name.removeprefix("timm/"), allow_unregistered=True)
    if config is None or not config.hf_hub_id:
        return None
    file = config.hf_hub_filename or "pytorch_model.bin"
    file = _SAFE_FILES.get(file, file)
    return (config.hf_hub_id, file) if file.endswith(".safetensors") else None

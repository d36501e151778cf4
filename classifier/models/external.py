"""External models: timm's by name, and the user's own class or function by import path."""

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from torch import nn

from classifier.config.fields import suggest
from classifier.config.sections import ModelConfig
from classifier.config.trust import check_trusted
from classifier.errors import ClassifierError, ModelError, in_short
from classifier.models.head import set_head_dropout

# Files of a run folder, one of which stands beside its experiment.yaml from the start.
_RUN_FILES = ("split.json", "history.jsonl", "run.log", "result.json", "bundle")
# Parameter names that a user's class may have for the number of classes, the channels and the image size.
_PARAMETER_NAMES = {
    "classes": ("classes", "num_classes", "n_classes"),
    "channels": ("channels", "in_channels", "in_chans", "num_channels"),
    "size": ("size", "image_size", "img_size"),
}


def build_timm(config: ModelConfig, *, classes: int, channels: int, size: int) -> nn.Module:
    """Build timm/NAME with random weights. ModelError if timm is not installed or has no such model."""
    name = config.name.removeprefix("timm/")
    timm = import_timm(config.name)
    base = name.partition(".")[0]
    if not timm.is_model(base):
        near = suggest(base, timm.list_models())
        raise ModelError(f"model.name {config.name}: timm has no such model{near.replace('mean ', 'mean timm/')}")
    options: dict[str, Any] = {"num_classes": classes, "in_chans": channels, "drop_rate": config.dropout}
    drop_path = {"drop_path_rate": config.drop_path} if config.drop_path else {}
    for optional in ({"img_size": size} | drop_path, drop_path):  # transformers need the size, others do not take it
        try:
            return timm.create_model(name, **optional, **options)
        except TypeError:
            continue
    return timm.create_model(name, **options)  # set_stochastic_depth tells that there is none


def timm_statistics(name: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return the per-channel (mean, std) that the weights of timm/NAME were trained with, or None if unknown."""
    config = import_timm(name).get_pretrained_cfg(name.removeprefix("timm/"), allow_unregistered=True)
    return None if config is None else (config.mean, config.std)


def build_from_path(config: ModelConfig, *, classes: int, channels: int, size: int) -> nn.Module:
    """Build import.path:Class, which may be in the current folder, with the arguments its signature accepts.

    ModelError if the user has not named it (config.trust), if it cannot be imported, takes no number of classes, or
    does not return a torch.nn.Module; nothing is imported from inside a run or bundle folder.
    """
    check_trusted(config.name)
    path, _, attribute = config.name.partition(":")
    where = f"model.name {config.name}"
    here = str(Path.cwd())
    if here not in sys.path and not _is_received(Path(here)):
        sys.path.append(here)  # last, so that a file here never hides a library
    refuse_location(path, where)
    try:
        make = importlib.import_module(path)
    except ClassifierError:
        raise
    except Exception as error:  # importing runs the user's code, which may raise anything
        reason = f"{type(error).__name__}: {in_short(error, 200)}"
        raise ModelError(f"{where}: {path} cannot be imported from {here} ({reason})") from error
    for part in attribute.split("."):
        if not hasattr(make, part):
            near = suggest(part, [name for name in vars(make) if not name.startswith("_")])
            raise ModelError(f"{where}: {path} has no {part}{near}")
        make = getattr(make, part)
    if not callable(make):
        raise ModelError(f"{where} is not a class or function, but {type(make).__name__}")
    model = make(**_match_arguments(where, make, classes=classes, channels=channels, size=size))
    if not isinstance(model, nn.Module):
        raise ModelError(f"{where} returns {type(model).__name__}, not a torch.nn.Module")
    if config.dropout:
        set_head_dropout(model, config.dropout)
    return model


def refuse_location(module: str, where: str, data: Path | None = None) -> None:
    """ModelError if the module, or a package that holds it, lies in a run or bundle folder, or in the folder of data.

    Nothing is imported to find that out.
    """
    for location in _find_locations(module):
        for folder in (location, *location.parents):
            if folder == data or _is_received(folder):
                raise ModelError(
                    f"{where}: {location} lies in {folder}, and nothing is imported from a folder of data, a run or a "
                    "bundle: move your code out of it"
                )


def _find_locations(module: str) -> Iterator[Path]:
    """Yield the file or folders of a module and of each package above it, as far as they are found."""
    names, search = module.split("."), None
    for name in (".".join(names[: n + 1]) for n in range(len(names))):
        if (loaded := sys.modules.get(name)) is not None:
            spec = loaded.__spec__
        else:
            finders = (finder.find_spec(name, search) for finder in sys.meta_path)
            spec = next((found for found in finders if found is not None), None)
            if spec is None and search is None:  # the working directory will be the last place
                spec = PathFinder.find_spec(name, [str(Path.cwd())])
        if spec is None:
            return
        search = spec.submodule_search_locations
        for location in (*([spec.origin] if spec.has_location and spec.origin else []), *(search or ())):
            yield Path(location).resolve()
        if search is None:
            return


def _is_received(folder: Path) -> bool:
    """Return whether it is the folder of a bundle or a run, which may come from someone else."""
    if (folder / "bundle.json").exists():
        return True
    return (folder / "experiment.yaml").exists() and any((folder / name).exists() for name in _RUN_FILES)


def _match_arguments(where: str, make: Callable[..., Any], **values: int) -> dict[str, int]:
    parameters = inspect.signature(make).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    arguments = {}
    for key, names in _PARAMETER_NAMES.items():
        name = next((n for n in names if n in parameters), key if takes_any else None)
        if name is not None:
            arguments[name] = values[key]
    if not any(name in arguments for name in _PARAMETER_NAMES["classes"]):
        raise ModelError(f"{where} takes no number of classes: give it a parameter named classes or num_classes")
    return arguments


def import_timm(name: str) -> Any:
    """Import timm for model.name. ModelError if it is not installed, or would be imported from a run or bundle."""
    refuse_location("timm", f"model.name {name}")
    try:
        import timm
    except ImportError as error:
        raise ModelError(f"model.name {name}: timm is not installed: run pip install timm") from error
    return timm

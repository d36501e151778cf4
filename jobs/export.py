"""Export a model to run without torch: python jobs/export.py runs/NAME --to onnx

The export lies in the model's bundle, where predict uses it; --out writes a folder to deploy instead, without the
weights. It answers as the model does on images of the validation split, or it is refused.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

if not __package__:  # run as a script: import this folder as a package, installed or not
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = Path(__file__).resolve().parent.name

from .cli.command import main
from .cli.verb import DATA_SETTINGS, ModelOptions, Request, Verb, positional


@dataclass(frozen=True, kw_only=True)
class ExportOptions(ModelOptions):
    run: str = positional("Folder of a run, a search or a bundle.")
    to: Literal["onnx", "openvino", "torch_export"] = "onnx"
    """Format: onnx, which predict uses on CPUs; openvino; torch_export, a program for torch.export.load."""
    out: str | None = None
    """Write a new folder with all that predict needs, to copy elsewhere. If unset, into the model's bundle."""
    data: str | None = None
    """Path of the data set, if it has moved. Its images, labels and splits must be unchanged."""


VERB = Verb(
    name="export",
    examples=("runs/NAME", "runs/NAME --out deploy/", "runs/NAME --to openvino"),
    options=ExportOptions,
    settings=DATA_SETTINGS,
)


def export(request: Request) -> None:
    """Export the model, and log how well it agrees, its size and its folder."""
    from classifier.bundle import document
    from classifier.evaluation.training_data import load_training_data
    from classifier.export.folder import GateImages, export_bundle

    from .cli.console import RunLog

    options, about = request.options, document.read(request.options.run)
    with RunLog() as log:
        dataset = load_training_data(options.run, about, options.data, request.changes)
        log.begin_phase(f"exporting to {options.to}")
        gate = GateImages.select(dataset)
        made = export_bundle(options.run, options.to, gate, Path(options.out) if options.out else None)
        parity = made.document["parity"]
        size = sum(path.stat().st_size for path in made.folder.iterdir() if path.name.startswith("model."))
        images = f"{parity['images']:,} {parity['split']} image{'' if parity['images'] == 1 else 's'}"
        log.info(f"the same labels as the model on {images}, probabilities within {parity['max_difference']:.1g}")
        if about.experiment["train"]["precision"] != "fp32":
            log.info(f"it computes in fp32; the model was evaluated in {about.experiment['train']['precision']}")
        log.info(f"{options.to}, {size / 1e6:.1f} MB, without torch")
        log.info(str(made.folder.parent if options.out else made.folder))


if __name__ == "__main__":
    main(VERB, export)

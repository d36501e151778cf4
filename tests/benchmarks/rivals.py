"""What others would write or call to train on a folder: the columns of default.py that are not this program's.

python tests/benchmarks/rivals.py RIVAL FOLDER OUT.json --weights FOLDER --seconds S --seed N trains on FOLDER/train and
writes the seconds from the start of the process to the trained model, and the class predicted for each test image. It
imports nothing of this program, so that it runs wherever its rival is installed. `seconds` limits the training alone,
without imports and start. --weights has what default.py wrote: ImageNet weights of BACKBONE as timm names them.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module  # for packages that are not installed here, or do not declare what they export
from pathlib import Path
from typing import Any

START = time.monotonic()
BACKBONE = "tf_efficientnet_lite0"
BATCH, WORKERS = 32, 2
ULTRALYTICS = "yolo11n-cls"


@dataclass(frozen=True)
class Task:
    folder: Path
    weights: Path
    seconds: float
    seed: int

    def images(self, split: str) -> dict[Path, str]:
        """Image files and their classes, in alphabetical order."""
        return {path: path.parent.name for path in sorted((self.folder / split).glob("*/*.png"))}


@dataclass(frozen=True)
class Prediction:
    classes: list[str]
    """Of the test images, in the order of Task.images."""
    trained_at: float
    """By time.monotonic."""
    note: str = ""


def create_backbone(task: Task, classes: int) -> Any:
    """Create the pretrained network with a new head, or with none for 0 classes."""
    timm = import_module("timm")
    file = {"file": str(task.weights / "pytorch_model.bin")}
    return timm.create_model(BACKBONE, pretrained=True, pretrained_cfg_overlay=file, num_classes=classes)


def load_batches(task: Task, split: str, model: Any, **training: Any) -> Any:
    """Return a loader of a split with timm's transforms; `training` are settings of its augmentation."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    timm_data = import_module("timm.data")
    config = timm_data.resolve_model_data_config(model)
    transform = timm_data.create_transform(**config, is_training=bool(training), **training)
    dataset = ImageFolder(str(task.folder / split), transform)
    keep = {"num_workers": WORKERS, "persistent_workers": True}
    return DataLoader(dataset, BATCH, shuffle=bool(training), **keep)


def predict_logits(task: Task, split: str, model: Any) -> tuple[Any, Any]:
    """The outputs of a network for the images of a split, and their labels."""
    import torch

    outputs, labels = [], []
    with torch.inference_mode():
        for images_NCHW, labels_N in load_batches(task, split, model.eval()):
            outputs.append(model(images_NCHW))
            labels.append(labels_N)
    return torch.cat(outputs).numpy(), torch.cat(labels).numpy()


def probe(task: Task, *, cross_validated: bool = False) -> Prediction:
    """Logistic regression by scikit-learn on the features of the frozen backbone, as in a tutorial."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
    from sklearn.model_selection import StratifiedKFold

    backbone = create_backbone(task, 0)
    features_NF, labels_N = predict_logits(task, "train", backbone)
    if cross_validated:
        folds = StratifiedKFold(min(5, int(np.bincount(labels_N).min())), shuffle=True, random_state=task.seed)
        penalties = {"Cs": np.logspace(-4, 2, 7), "l1_ratios": (0.0,), "use_legacy_attributes": False}
        head = LogisticRegressionCV(cv=folds, scoring="accuracy", max_iter=1000, **penalties)
    else:
        head = LogisticRegression(max_iter=1000)
    head.fit(features_NF, labels_N)
    trained_at = time.monotonic()
    names = sorted(set(task.images("train").values()))
    return Prediction([names[i] for i in head.predict(predict_logits(task, "test", backbone)[0])], trained_at)


def probe_cv(task: Task) -> Prediction:
    """The same, with the penalty chosen by cross-validation."""
    return probe(task, cross_validated=True)


def timm_loop(task: Task) -> Prediction:
    """The whole network, by the parts of timm's train.py, with flags for few images.

    --opt adamw --lr 5e-4 --weight-decay 0.05 --sched cosine --warmup-epochs (a tenth) --scale 0.6 1.0 --smoothing 0.1
    --head-init-scale 0.01 --amp --amp-dtype bfloat16 --channels-last. The schedule follows the time, which is not known
    in epochs.
    """
    import torch

    torch.manual_seed(task.seed)
    names = sorted(set(task.images("train").values()))
    model = create_backbone(task, len(names)).to(memory_format=torch.channels_last)
    with torch.no_grad():
        model.get_classifier().weight.mul_(0.01)
    optimizer = import_module("timm.optim").create_optimizer_v2(model, opt="adamw", lr=5e-4, weight_decay=0.05)
    times: dict[str, Any] = {"num_epochs": 1000, "warmup_epochs": 100, "warmup_lr": 1e-5, "min_lr": 0.0}
    scheduler, _ = import_module("timm.scheduler").create_scheduler_v2(optimizer, sched="cosine", **times)
    loss_of = import_module("timm.loss").LabelSmoothingCrossEntropy(0.1)
    loader = load_batches(task, "train", model, scale=(0.6, 1.0))
    began, epochs = time.monotonic(), 0.0

    def batches_in_time() -> Iterator[tuple[Any, Any]]:
        while True:
            for batch in loader:
                share = (time.monotonic() - began) / task.seconds
                if share >= 1:
                    return
                scheduler.step(int(1000 * share))
                yield batch

    model.train()
    for images_NCHW, labels_N in batches_in_time():
        with torch.autocast("cpu", torch.bfloat16):
            logits_NK = model(images_NCHW.contiguous(memory_format=torch.channels_last))
        loss = loss_of(logits_NK.float(), labels_N)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        epochs += len(labels_N) / len(loader.dataset)
    trained_at = time.monotonic()
    logits = predict_logits(task, "test", model)[0]
    return Prediction([names[i] for i in logits.argmax(1)], trained_at, f"{epochs:.1f} epochs")


def ultralytics(task: Task) -> Prediction:
    """`yolo classify train` with its defaults and a limit of time; the last epoch's weights.

    Those of the best epoch would be chosen on the test images, as there is no val/ folder. Pretrained where its weights
    can be downloaded.
    """
    package = import_module("ultralytics")
    package.settings.update({"mlflow": False, "tensorboard": False})  # which are installed here for other reasons
    try:
        model, note = package.YOLO(f"{ULTRALYTICS}.pt"), "pretrained"
    except OSError:  # a ConnectionError, without a network
        model, note = package.YOLO(f"{ULTRALYTICS}.yaml"), "from scratch"
    with tempfile.TemporaryDirectory() as scratch:
        limits = {"time": task.seconds / 3600, "seed": task.seed, "device": "cpu", "workers": WORKERS}
        model.train(data=str(task.folder), project=scratch, name="run", plots=False, **limits)
        trained_at = time.monotonic()
        model = package.YOLO(f"{scratch}/run/weights/last.pt")
    paths = [str(path) for path in task.images("test")]
    found = model.predict(paths, stream=True, verbose=False, device="cpu")
    return Prediction([one.names[one.probs.top1] for one in found], trained_at, note)


def autogluon(task: Task) -> Prediction:
    """MultiModalPredictor with its defaults and a limit of time, but for BACKBONE.

    Its own, caformer_b36, has to be downloaded.
    """
    import pandas as pd

    multimodal = import_module("autogluon.multimodal")
    images = task.images("train")
    labelled = pd.DataFrame({"image": [str(path) for path in images], "label": list(images.values())})
    backbone = {"model.timm_image.checkpoint_name": str(task.weights)}
    with tempfile.TemporaryDirectory() as scratch:
        predictor = multimodal.MultiModalPredictor(label="label", path=f"{scratch}/model", verbosity=1)
        predictor.fit(labelled, time_limit=task.seconds, seed=task.seed, hyperparameters=backbone)
        trained_at = time.monotonic()
        found = predictor.predict(pd.DataFrame({"image": [str(path) for path in task.images("test")]}))
    return Prediction([str(name) for name in found], trained_at)


RIVALS: dict[str, Callable[[Task], Prediction]] = {
    "probe": probe,
    "probe-cv": probe_cv,
    "timm": timm_loop,
    "ultralytics": ultralytics,
    "autogluon": autogluon,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("rival", choices=RIVALS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    args = parser.parse_args()
    task = Task(args.folder, args.weights, args.seconds, args.seed)
    done = RIVALS[args.rival](task)
    ids = [path.stem for path in task.images("test")]
    result = {
        "seconds": round(done.trained_at - START, 1),
        "predicted": dict(zip(ids, done.classes, strict=True)),
        "note": done.note,
    }
    args.out.write_text(json.dumps(result))


if __name__ == "__main__":
    main()

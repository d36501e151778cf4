"""Scripts that predict a folder of images as others would: python tests/benchmarks/ship_rivals.py NAME BUNDLE FOLDER

torchvision: its transforms in a DataLoader's workers, and the network eagerly. timm: its own loader and transforms, as
its inference script has them. Both print a class per file. The network is timm's, with the weights of the bundle.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

BATCH, WORKERS = 32, 2


def load_model(bundle: Path) -> Any:
    return import_module("timm").create_model(f"local-dir:{bundle}", pretrained=True).eval()


def predict_by_torchvision(bundle: Path, folder: Path) -> None:
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    model = load_model(bundle)
    about = model.pretrained_cfg
    prepare = transforms.Compose(
        [
            transforms.Resize(about["input_size"][1]),
            transforms.CenterCrop(about["input_size"][1]),
            transforms.ToTensor(),
            transforms.Normalize(about["mean"], about["std"]),
        ]
    )
    files = sorted(folder.iterdir())

    class Files(Dataset):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, n: int) -> Any:
            return prepare(Image.open(files[n]).convert("RGB"))

    names = iter(files)
    with torch.inference_mode():
        for batch in DataLoader(Files(), batch_size=BATCH, num_workers=WORKERS):
            for probability, label in zip(*model(batch).softmax(1).max(1), strict=True):
                print(next(names).name, int(label), float(probability), sep=",")


def predict_by_timm(bundle: Path, folder: Path) -> None:
    import torch

    timm_data = import_module("timm.data")
    model = load_model(bundle)
    config = timm_data.resolve_model_data_config(model)
    images = timm_data.create_dataset("", root=str(folder), class_map="")
    loader = timm_data.create_loader(
        images, batch_size=BATCH, use_prefetcher=False, num_workers=WORKERS, device=torch.device("cpu"), **config
    )
    names = iter(images.filenames(basename=True))
    with torch.inference_mode():
        for batch, _ in loader:
            for probability, label in zip(*model(batch).softmax(1).max(1), strict=True):
                print(next(names), int(label), float(probability), sep=",")


if __name__ == "__main__":
    _, name, bundle_folder, images_folder = sys.argv
    predict = {"torchvision": predict_by_torchvision, "timm": predict_by_timm}[name]
    predict(Path(bundle_folder), Path(images_folder))

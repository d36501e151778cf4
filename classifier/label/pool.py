"""The unlabelled images of a folder: their features, a model's answers, and which of them are near duplicates.

Bounded in memory and time: of more than a given number of images, a random part is considered.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from classifier.answers.listing import ImageListing
from classifier.bundle.image_reader import ImageReader
from classifier.config.sections import DataConfig
from classifier.data.audit import near_duplicates
from classifier.data.audit.checks import MIN_COMPARED_SIDE
from classifier.data.audit.scan import ScanResult, scan_images
from classifier.data.split_units import number_contents
from classifier.data.unlabelled.source import list_images
from classifier.errors import ConfigError, DataError
from classifier.inference.features import extract_batch_features, load_features, save_features
from classifier.label.backbone import Backbone

FEATURES = "features.safetensors"
COMPONENTS = 64


@dataclass(frozen=True, eq=False)
class Pool:
    """N usable images. features_NF: float32, as the backbone gives them. groups_N: equal for near duplicates.

    probabilities_NK: of the model of a bundle, else None. unreadable: images that were left out.
    """

    files: tuple[Path, ...]
    features_NF: np.ndarray
    groups_N: np.ndarray
    probabilities_NK: np.ndarray | None = None
    unreadable: int = 0

    @functools.cached_property
    def directions(self) -> np.ndarray:
        """directions_ND, float32: the principal components of the features scaled to length 1, for clustering.

        They choose better than all dimensions of the features, and many times as fast (LOG.md).
        """
        from sklearn.decomposition import PCA

        norms_N1 = np.maximum(np.linalg.norm(self.features_NF, axis=1, keepdims=True), 1e-12)
        components = min(COMPONENTS, *self.features_NF.shape)
        return PCA(components, random_state=0).fit_transform(self.features_NF / norms_N1).astype(np.float32)


def list_files(folder: Path, limit: int, seed: int) -> tuple[tuple[Path, ...], int, list[str]]:
    """Return the image files of a folder, at most `limit` drawn at random; how many there are; and what was left out.

    ConfigError for images that are no files of their own; DataError if there are none.
    """
    listing = ImageListing([str(folder)])
    files: list[Path] = []
    for one in listing:
        if not isinstance(one.file, Path):
            raise ConfigError(
                f"{folder} has its images in archives or tables: unpack them, as a manifest lists files by their paths"
            )
        files.append(one.file)
    if not files:
        raise DataError(f"{folder} lists no images: give a folder of image files")
    count = len(files)
    if count > limit:
        drawn = np.sort(np.random.default_rng(seed).choice(count, limit, replace=False))
        files = [files[n] for n in drawn]
    return tuple(files), count, listing.notes


def scan_files(files: Sequence[Path], config: DataConfig, tick: Callable[[int], None] = lambda _: None) -> ScanResult:
    """Scan unlabelled images as an audit does."""
    return scan_images(list_images("unlabelled", list(map(str, files)), files), config, tick)


def build_pool(
    scan: ScanResult,
    backbone: Backbone,
    config: DataConfig,
    cache: Path,
    tick: Callable[[int], None] = lambda _: None,
) -> Pool:
    """Compute what is known of the images, or take it from the file `cache` if it is there and of the same images.

    DataError if fewer than two images can be read.
    """
    files: list[Path] = [scan.source.images[n] for n in scan.usable_N]  # pyright: ignore[reportAssignmentType]
    key = _identify(files, scan, backbone)
    stored = load_features(cache)
    if stored is None or stored["key"].tolist() != key.tolist():
        stored = _compute(files, backbone, config, tick) | {"groups": group_duplicates(scan), "key": key}
        save_features(stored, cache)
    readable_N = stored["readable"].numpy().astype(bool)
    if readable_N.sum() < 2:
        raise DataError("fewer than two images can be read: give a folder of more images")
    probabilities_NK = stored["probabilities"].numpy() if "probabilities" in stored else None
    return Pool(
        files=tuple(file for file, is_readable in zip(files, readable_N, strict=True) if is_readable),
        features_NF=stored["features"].numpy(),
        groups_N=stored["groups"].numpy()[readable_N],
        probabilities_NK=probabilities_NK,
        unreadable=len(scan.source.labels_N) - int(readable_N.sum()),
    )


def _compute(
    files: Sequence[Path], backbone: Backbone, config: DataConfig, tick: Callable[[int], None]
) -> dict[str, torch.Tensor]:
    """Return features and, of a bundle, probabilities of the readable images, and which ones these are."""
    reader, scorer = ImageReader(backbone.spec, config.max_bytes, config.max_seconds), backbone.scorer
    features: list[torch.Tensor] = []
    probabilities: list[torch.Tensor] = []
    is_readable: list[bool] = []
    try:
        for start in range(0, len(files), scorer.batch_size):
            batch = reader.decode(files[start : start + scorer.batch_size])
            pixels = [one for one in batch if not isinstance(one, DataError)]
            is_readable += [not isinstance(one, DataError) for one in batch]
            if pixels:
                images_NCHW = torch.from_numpy(np.stack(pixels))
                features_NF, logits_NK = extract_batch_features(backbone.model, scorer, images_NCHW)
                features.append(features_NF.cpu())
                if backbone.class_names:
                    log_NK = scorer.apply_temperature(scorer.log_probabilities(logits_NK))
                    probabilities.append(log_NK.exp().float().cpu())
            tick(len(batch))
    finally:
        reader.close()
    found = {"features": torch.cat(features) if features else torch.zeros(0, 1)}
    found["readable"] = torch.tensor(is_readable, dtype=torch.uint8)
    return found | ({"probabilities": torch.cat(probabilities)} if probabilities else {})


def group_duplicates(scan: ScanResult) -> torch.Tensor:
    """Return groups_N: images with the same pixels, and near duplicates as an audit finds them, share a number."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    contents_N, first_M = number_contents(scan.hashes_K)
    shorter_M = scan.sizes_K2.min(1)[first_M] if len(first_M) else first_M
    compared_C = np.flatnonzero(shorter_M >= MIN_COMPARED_SIDE)
    pairs = []
    if len(compared_C) > 1:
        pairs = near_duplicates.find_pairs(scan.thumbs_KHW[first_M[compared_C]], shorter_M[compared_C])
    first_P = compared_C[[pair.first for pair in pairs]]
    second_P = compared_C[[pair.second for pair in pairs]]
    links = coo_array((np.ones(len(pairs)), (first_P, second_P)), (len(first_M), len(first_M)))
    return torch.from_numpy(connected_components(links, directed=False)[1][contents_N].astype(np.int64))


def _identify(files: Sequence[Path], scan: ScanResult, backbone: Backbone) -> torch.Tensor:
    """Return a checksum of the images and the backbone."""
    hasher = hashlib.blake2b(f"1 {backbone.identity} {backbone.spec}".encode(), digest_size=16)
    for file, digest in zip(files, scan.digests_N[scan.usable_N], strict=True):
        hasher.update(os.fsencode(file) + b"\0" + digest.tobytes())
    return torch.frombuffer(bytearray(hasher.digest()), dtype=torch.uint8)

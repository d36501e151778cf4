"""Who trains, who validates, who tests: decided by each picture's content, so that others never move it.

A hash of (seed, content) is a number u in [0, 1). Below `test` it is a test picture, from 1 - `validation` up one for
validation, in between it trains: shares hold in expectation, copies stay together, and another share for the test
moves no picture to or from validation. A class that such a draw leaves out of a split borrows the picture whose
number is nearest to that split; no other picture ever lies elsewhere than its number says.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from classifier.data.folds import fold_of
from classifier.data.split_names import DRAWN, SPLITS, TEST, TRAIN, VALIDATION
from classifier.errors import DataError, list_few


@dataclass(frozen=True)
class Reassignment:
    """A picture that its class needs more in another split than the one its number says."""

    id: str
    class_name: str
    home: str
    split: str


FindingKind = Literal[
    "not_supplied", "duplicates_across", "groups_across", "label_conflict", "missing_class", "reassigned"
]


@dataclass(frozen=True)
class SplitFinding:
    """What a user should know about a split. text: a sentence; kind: what it is about, for code that looks for it."""

    kind: FindingKind
    text: str


@dataclass(frozen=True, eq=False)
class DrawnSplits:
    """splits_N: int8, an index of SPLITS for every picture."""

    splits_N: np.ndarray
    loans: tuple[Reassignment, ...]
    findings: tuple[SplitFinding, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class SplitInput:
    """What a draw must know of N pictures: digests of their contents (V16), and what their source said of them."""

    name: str
    class_names: Sequence[str]
    ids: Sequence[str]
    digests_N: np.ndarray
    labels_N: np.ndarray
    supplied_N: np.ndarray
    """int8, an index of SPLITS or DRAWN."""
    groups: Sequence[str] | None = None
    """N names; pictures that share one are never split."""


def draw_splits(
    pictures: SplitInput,
    *,
    validation: float,
    test: float,
    seed: int,
    folds: int | None = None,
    fold: int = 0,
) -> DrawnSplits:
    """The split of every picture. Supplied ones are honoured; what is missing is drawn from the others and from train.

    With folds, one of them is the test split, of all that was not supplied as a test: supplied test pictures are in no
    split then (DRAWN), and supplied validation ones are drawn anew like all others.

    DataError if the shares leave nothing to train on, or a class has too few pictures.
    """
    name, supplied_N = pictures.name, pictures.supplied_N
    if folds is not None and fold >= folds:
        raise DataError(f"data.fold {fold}: {folds} folds are numbered from 0 to {folds - 1}")
    if folds is not None:
        supplied_N = np.where(supplied_N == TEST, TEST, DRAWN).astype(np.int8)
    supplied = {int(split) for split in np.unique(supplied_N)} - {DRAWN}
    shares = {TEST: test, VALIDATION: validation}
    missing = [split for split, share in shares.items() if split not in supplied and share > 0]
    if folds is not None:
        missing = [VALIDATION] if validation > 0 else []
    if sum(shares[split] for split in missing) >= 1:
        raise DataError(
            f"{name}: data.validation {validation:g} and data.test {test:g} leave no pictures to train on: lower them"
        )
    contents = _Contents(pictures, seed)
    pool_N = np.isin(supplied_N, (DRAWN, TRAIN))
    _refuse_lonely_classes(pictures, contents, pool_N, bool(missing))
    u_N = contents.u_U[contents.unit_N]
    splits_N = np.where(pool_N, TRAIN, supplied_N).astype(np.int8)
    if folds is not None:
        splits_N[~pool_N] = DRAWN
        places = np.flatnonzero(pool_N)
        here_N = fold_of(pictures.labels_N[places], contents.unit_N[places], folds, seed) == fold
        splits_N[places[here_N]] = TEST
        pool_N = splits_N == TRAIN
    if TEST in missing:
        splits_N[pool_N & (u_N < test)] = TEST
    if VALIDATION in missing:
        splits_N[pool_N & (u_N >= 1 - validation)] = VALIDATION
    home_N = splits_N.copy()
    if missing:
        _lend(pictures, contents, splits_N, pool_N, missing, shares)
    for split in (TRAIN, *missing):
        if not (splits_N == split).any():
            raise DataError(f"{name} has too few pictures ({len(splits_N)}) to draw its splits: add more")
    _refuse_untrained_classes(pictures, splits_N)
    loans = tuple(
        Reassignment(
            pictures.ids[n], pictures.class_names[int(pictures.labels_N[n])], SPLITS[home_N[n]], SPLITS[splits_N[n]]
        )
        for n in np.flatnonzero(home_N != splits_N).tolist()
    )
    findings = [*_drawn_from_train(name, supplied, missing, shares), *_copies_across(pictures, contents, splits_N)]
    findings += [*_conflicts(pictures, contents), *_absent(pictures, splits_N)]
    if loans:
        some = list_few([f"{loan.id} ({loan.home} to {loan.split})" for loan in loans])
        text = f"{len(loans)} pictures of small classes moved, so that no split lacks a class: {some}."
        findings.append(SplitFinding("reassigned", text))
    return DrawnSplits(splits_N, loans, tuple(findings))


class _Contents:
    """Pictures as units that are never split: of equal content, or of groups that equal contents join.

    content_N: a picture's content; unit_N: its unit; u_U: a unit's number in [0, 1).
    """

    def __init__(self, pictures: SplitInput, seed: int) -> None:
        self.content_N, first_C = numbered(pictures.digests_N)
        self.unit_N, names = self.content_N, pictures.digests_N[first_C]
        if pictures.groups is not None:
            self.unit_N, names = _joined(self.content_N, pictures.groups)
        key = str(seed).encode()
        hashes = bytearray()
        for name in names:
            hashes += hashlib.blake2b(name, digest_size=8, key=key).digest()
        # 53 bits: what a float holds exactly, so that u is never rounded up to 1
        self.u_U = (np.frombuffer(hashes, "<u8") >> np.uint64(11)) / 2.0**53
        self.shared_U = _have_several_labels(self.unit_N, pictures.labels_N, len(names))
        self.shared_C = _have_several_labels(self.content_N, pictures.labels_N, len(first_C))


def numbered(digests_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A number for what each picture holds, in the order in which contents first come; and where each first comes."""
    _, first, inverse_N = np.unique(digests_N, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    return number[inverse_N], first[order]


def _joined(content_N: np.ndarray, groups: Sequence[str]) -> tuple[np.ndarray, list[bytes]]:
    """Each picture's unit, where groups that hold equal contents are one; and the name of each unit's first group, so
    that a group which grows stays where it is."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names, group_N = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    nodes = len(names) + int(content_N.max()) + 1
    edges = coo_array((np.ones(len(content_N), np.int8), (group_N, len(names) + content_N)), shape=(nodes, nodes))
    count, unit_of = connected_components(edges, directed=False)
    first = np.full(count, len(names))
    np.minimum.at(first, unit_of[: len(names)], np.arange(len(names)))
    return unit_of[group_N].astype(np.int64), [str(names[n]).encode() for n in first]


def _have_several_labels(unit_N: np.ndarray, labels_N: np.ndarray, units: int) -> np.ndarray:
    pairs = np.unique(np.stack([unit_N, labels_N]), axis=1)
    return np.bincount(pairs[0], minlength=units) > 1


def _lend(
    pictures: SplitInput,
    contents: _Contents,
    splits_N: np.ndarray,
    pool_N: np.ndarray,
    missing: list[int],
    shares: dict[int, float],
) -> None:
    """Fill the holes of small classes, in splits_N. Training comes first, then the test, then validation.

    A unit moves whole. One that lies under two labels stays: it would move a picture of a class that lacks nothing.
    """
    classes = len(pictures.class_names)
    wanted = (TRAIN, *missing)
    table_KS = np.stack([np.bincount(pictures.labels_N[splits_N == s], minlength=classes) for s in range(3)], axis=1)
    for k in np.flatnonzero((table_KS[:, wanted] == 0).any(axis=1)):
        mine_N = np.flatnonzero((pictures.labels_N == k) & pool_N)
        units, first = np.unique(contents.unit_N[mine_N], return_index=True)
        place = dict(zip(units.tolist(), splits_N[mine_N[first]].tolist(), strict=True))
        lent: set[int] = set()
        for need in wanted:
            if need in place.values():
                continue
            if need != TRAIN and bool((splits_N[pictures.labels_N == k] == need).any()):
                continue
            held = list(place.values())
            free = [unit for unit in place if not contents.shared_U[unit] and unit not in lent]
            rich = [unit for unit in free if held.count(place[unit]) > 1]
            if need == TRAIN and not rich:  # two pictures, one that tests and one for validation
                rich = [unit for unit in free if place[unit] == VALIDATION] or free
            if not rich:
                continue
            unit = min(rich, key=lambda unit: (_distance(float(contents.u_U[unit]), need, shares), unit))
            place[unit] = need
            lent.add(unit)
            splits_N[(contents.unit_N == unit) & pool_N] = need


def _distance(u: float, split: int, shares: dict[int, float]) -> float:
    """From a number to the stretch of a split that it does not lie in."""
    if split == TEST:
        return u
    if split == VALIDATION:
        return 1 - u
    return max(shares[TEST] - u, u - (1 - shares[VALIDATION]))


def _refuse_lonely_classes(pictures: SplitInput, contents: _Contents, pool_N: np.ndarray, is_drawn: bool) -> None:
    counts_K = np.bincount(pictures.labels_N, minlength=len(pictures.class_names))
    for k in np.flatnonzero(counts_K < 2).tolist():
        count = "only one picture" if counts_K[k] else "no picture"
        raise DataError(f"{pictures.name}: the class {pictures.class_names[k]!r} has {count}: add more, or remove it")
    if not is_drawn:
        return
    pairs = np.unique(np.stack([contents.unit_N[pool_N], pictures.labels_N[pool_N]]), axis=1)
    distinct_K = np.bincount(pairs[1], minlength=len(pictures.class_names))
    everywhere = pool_N.all()
    for k in np.flatnonzero((distinct_K == 1) & everywhere).tolist():
        raise DataError(
            f"{pictures.name}: the {counts_K[k]} pictures of class {pictures.class_names[k]!r} are "
            f"{'copies of one' if pictures.groups is None else 'of one group, or copies'}: "
            "add others, or remove the class"
        )


def _refuse_untrained_classes(pictures: SplitInput, splits_N: np.ndarray) -> None:
    trained_K = np.bincount(pictures.labels_N[splits_N == TRAIN], minlength=len(pictures.class_names))
    for k in np.flatnonzero(trained_K == 0).tolist():
        raise DataError(
            f"{pictures.name}: the class {pictures.class_names[k]!r} has no training picture: add some, or remove it"
        )


def _drawn_from_train(
    name: str, supplied: set[int], missing: list[int], shares: dict[int, float]
) -> list[SplitFinding]:
    if not supplied:
        return []
    return [
        SplitFinding(
            "not_supplied",
            f"{name} brings no {SPLITS[split]} split: {shares[split]:.0%} of its training pictures are kept for it.",
        )
        for split in missing
    ]


def _copies_across(pictures: SplitInput, contents: _Contents, splits_N: np.ndarray) -> list[SplitFinding]:
    """Copies in two splits make a score look better than it is."""
    findings = []
    ways: list[tuple[FindingKind, np.ndarray, str]] = [
        ("duplicates_across", contents.content_N, "lie in {} too, byte for byte")
    ]
    if pictures.groups is not None:
        group_N = np.unique(np.asarray(pictures.groups), return_inverse=True)[1]
        ways.append(("groups_across", group_N, "are of groups that {} has too"))
    for kind, unit_N, how in ways:
        units_S = [np.unique(unit_N[splits_N == split]) for split in range(3)]
        for a, b in ((TRAIN, TEST), (TRAIN, VALIDATION), (VALIDATION, TEST)):
            both = np.intersect1d(units_S[a], units_S[b])
            copies = np.flatnonzero(np.isin(unit_N, both) & (splits_N == b)).tolist()
            if len(copies):
                some = list_few([pictures.ids[n] for n in copies])
                text = f"{len(copies)} pictures of {SPLITS[b]} {how.format(SPLITS[a])}: {some}."
                findings.append(SplitFinding(kind, text))
    return findings


def _conflicts(pictures: SplitInput, contents: _Contents) -> list[SplitFinding]:
    shared = np.flatnonzero(contents.shared_C)
    if not len(shared):
        return []
    example = np.flatnonzero(contents.content_N == shared[0]).tolist()
    other = next(n for n in example if pictures.labels_N[n] != pictures.labels_N[example[0]])
    pair = " and ".join(
        f"{pictures.ids[n]} ({pictures.class_names[pictures.labels_N[n]]})" for n in (example[0], other)
    )
    text = f"{len(shared)} pictures lie under several labels, byte for byte; one pair is {pair}."
    return [SplitFinding("label_conflict", text)]


def _absent(pictures: SplitInput, splits_N: np.ndarray) -> list[SplitFinding]:
    findings = []
    for split in (VALIDATION, TEST):
        here_N = splits_N == split
        counts_K = np.bincount(pictures.labels_N[here_N], minlength=len(pictures.class_names))
        absent = [repr(pictures.class_names[k]) for k in np.flatnonzero(counts_K == 0).tolist()]
        if absent and here_N.any():
            findings.append(SplitFinding("missing_class", f"{SPLITS[split]} has no picture of {list_few(absent)}."))
    return findings

"""Ray's session folder, where the results of a job would be lost.

`ray job submit --working-dir` copies a folder into Ray's session folder, where the job starts: relative paths such as
`runs` lead into it. Ray may delete the copy when the job has ended.
"""

import itertools
import os
from pathlib import Path

from classifier.errors import ConfigError

# What to set instead.
OUT_FIX = "--out to a folder outside it, such as /shared/runs"
STORAGE_FIX = f"{OUT_FIX}, or --storage to one that outlives the cluster, such as s3://bucket/runs"


def refuse_lost_results(
    out: str | os.PathLike[str], *, resume: str | None = None, storage: str | None = None, fix: str = OUT_FIX
) -> None:
    """ConfigError, which names the fix, if a training with these options would leave its results in that folder."""
    if folder := find_lost_folder(Path.cwd(), os.fspath(out), resume=resume, storage=storage):
        raise ConfigError(
            f"the results would be lost: {folder} is in the session folder that Ray may delete when the job has ended; "
            f"set {fix}"
        )


def find_lost_folder(cwd: Path, out: str, *, resume: str | None = None, storage: str | None = None) -> Path | None:
    """The absolute path of OUT, or of the run to resume, if it is in Ray's session folder and storage is no help."""
    folders = [Path(os.path.normpath(cwd / out / (resume or "")))]
    if storage is not None:
        if "://" in storage:
            return None
        folders.append(Path(os.path.normpath(cwd / storage)))
    return folders[0] if all(map(_is_in_session, folders)) else None


def _is_in_session(folder: Path) -> bool:
    """Whether it is TEMP/session_DATE/runtime_resources/..., where Ray keeps the working directories of jobs."""
    pairs = itertools.pairwise(folder.parts)
    return any(one.startswith("session_") and two == "runtime_resources" for one, two in pairs)

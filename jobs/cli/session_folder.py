"""Ray's session folder, where the results of a job would be lost.

`ray job submit --working-dir` copies a folder into Ray's session folder, where the job starts: relative paths such as
`runs` lead into it. Ray may delete the copy when the job has ended.
"""

import itertools
import os
from pathlib import Path
from typing import Any

from classifier.errors import ConfigError


def refuse_lost_results(options: Any) -> None:
    """ConfigError if a training with these options would leave its results in Ray's session folder."""
    if not hasattr(options, "resume") or getattr(options, "dry_run", False):  # nothing is trained
        return
    storage = getattr(options, "storage", None)
    if folder := find_lost_folder(Path.cwd(), options.out, resume=options.resume, storage=storage):
        fix = "--out to a folder outside it, such as /shared/runs"
        if hasattr(options, "storage"):
            fix += ", or --storage to one that outlives the cluster, such as s3://bucket/runs"
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

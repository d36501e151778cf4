"""Windows: a training runs, and every module is imported, without what only Unix has.

A process imports everything once, so that the libraries are loaded, then hides what Windows lacks, forgets our own
modules and imports them again.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CODE = """
import importlib, os, signal, sys
from pathlib import Path

TOPS = ("classifier", "jobs")
files = [path for top in TOPS for path in sorted(Path(top).rglob("*.py"))]
modules = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files]

def import_all():
    for name in [name for name in sys.modules if name.partition(".")[0] in TOPS]:
        del sys.modules[name]
    for name in modules:
        importlib.import_module(name)

class Absent:
    names = ("fcntl", "grp", "pwd", "resource", "termios")

    def find_spec(self, name, path=None, target=None):
        if name in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

def hide(module, names):
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)

import_all()
sys.meta_path.insert(0, Absent())
for name in Absent.names:
    sys.modules.pop(name, None)
hide(os, "fork forkpty register_at_fork sched_getaffinity sched_setaffinity nice getpgid killpg setsid uname sysconf")
hide(os, "pread pwrite posix_fadvise fchown getuid getgid wait wait3 mkfifo")
hide(signal, "SIGALRM SIGCHLD SIGCONT SIGHUP SIGQUIT SIGSTOP SIGUSR1 SIGUSR2 alarm pause pthread_kill setitimer")
import_all()

import classifier
photos, out = map(Path, sys.argv[1:])
settings = {"train.epochs": 1, "data.batch": 16, "data.cache": str(out / "cache")}
run = classifier.train(photos, out=out, progress=False, **settings)
assert list((out / "cache").rglob("segment-*.arrow"))
print(classifier.load(run).predict([next(photos.rglob("*.png"))])[0].class_name)

hide(os, "O_NONBLOCK O_DIRECTORY O_NOFOLLOW geteuid statvfs fchmod")  # libraries use these as long as this is Unix
hide(signal, "SIGKILL")
sys.platform = "win32"
import_all()
print(len(modules))
"""


@pytest.mark.long
def test_training_and_imports_without_what_windows_lacks(photos: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CODE, str(photos), str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    predicted, modules = done.stdout.split()
    assert predicted in ("red", "green", "blue")
    assert int(modules) > 200

"""The models that are served: several, each in several versions, which come and go without losing a request.

A version is loaded, checked by the sample of its export and warmed up before it takes over, and the one before it is
freed after its last answer. What cannot be loaded changes nothing.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from classifier.bundle.exported import fingerprint
from classifier.bundle.predictor import Predictor
from classifier.errors import ClassifierError
from classifier.serve.bounds import RequestError
from classifier.serve.metrics import Metrics
from classifier.serve.rollout import Comparison, Outcome, RolloutBounds
from classifier.serve.version import ModelVersion, Pools, Query, Reply

Say = Callable[..., None]
"""Logs an event by its name, with fields."""


class Source(NamedTuple):
    """A bundle to serve: the name of its model, and where it lies."""

    model: str
    path: Path


@dataclass
class Trial:
    """A new version that is tried beside the one that it is to replace."""

    old: ModelVersion
    new: ModelVersion
    comparison: Comparison


class ServedModel:
    """The versions of one model. The last one answers, unless a request names another."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.versions: dict[str, ModelVersion] = {}
        self.trial: Trial | None = None
        self.rejected: set[str] = set()
        """Digests of versions that were rolled back, which are tried again only if that is asked for by name."""
        self._count = 0

    @property
    def current(self) -> ModelVersion:
        return next(reversed(self.versions.values()))

    def replace(self, old: ModelVersion, new: ModelVersion) -> None:
        """Put a version in the place of another, in their order, too."""
        versions = [new if one is old else one for one in self.versions.values()]
        self.versions = {one.number: one for one in versions}

    def next_number(self) -> str:
        self._count += 1
        return str(self._count)

    def find(self, number: str | None) -> ModelVersion:
        """Return a version, by its number or its bundle. RequestError (404) if there is none."""
        if number is None:
            return self.current
        for version in self.versions.values():
            if version.bundle == number:
                return version
        if number not in self.versions:
            raise RequestError(404, f"{self.name} has no such version: {', '.join(self.versions)} are served")
        return self.versions[number]


class Registry:
    """All models of a server. Everything but the loading itself runs on the event loop."""

    def __init__(
        self,
        open_predictor: Callable[[Path], Predictor],
        metrics: Metrics,
        say: Say,
        *,
        pools: Pools | None = None,
        rollout: RolloutBounds | None = None,
    ) -> None:
        self._open, self._metrics, self._say = open_predictor, metrics, say
        self.pools, self.rollout = pools or Pools(), rollout or RolloutBounds()
        self.models: dict[str, ServedModel] = {}
        self.is_ready = False
        """Whether requests are welcome: false before all is loaded, and while the server drains."""
        self._loading = asyncio.Lock()
        self._background: set[asyncio.Task[None]] = set()

    async def open(self, sources: Sequence[Source]) -> None:
        """Load the models to begin with. ClassifierError if one cannot be used."""
        for name, path in sources:
            model = self.models.get(name) or ServedModel(name)
            version = await self._load(model, path)
            model.versions[version.number] = version
            version.metrics.set_ready(True)
            self.models[name] = model
        self.is_ready = True

    async def reload(self, names: Sequence[str] | None = None) -> list[str]:
        """Load again what has changed on disk, and switch or try it; return the versions that were loaded, as NAME:N.

        What cannot be loaded keeps its version, and is logged. ClassifierError then, if it was named. Changes are
        loaded one after the other.
        """
        loaded = []
        async with self._loading:
            for model in [self.find(name) for name in names] if names else [*self.models.values()]:
                for version in [*model.versions.values()]:
                    try:
                        digest = await self._fingerprint(version.path)
                        tried = model.trial.new.digest if model.trial and model.trial.old is version else None
                        if digest in (version.digest, tried) or (digest in model.rejected and not names):
                            continue
                        new = await self._load(model, version.path)
                    except Exception as error:  # the bundle may be in the middle of a copy
                        reason = str(error) if isinstance(error, ClassifierError) else type(error).__name__
                        self._say("load_failed", model=model.name, version=version.number, error=reason)
                        if names:
                            raise
                        continue
                    self._replace(model, version, new)
                    loaded.append(f"{model.name}:{new.number}")
        return loaded

    def find(self, name: str | None) -> ServedModel:
        """Return a model; the first one without a name. RequestError (404) if there is none of this name."""
        if name is None and self.models:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise RequestError(404, f"there is no such model: {', '.join(self.models)} are served")
        return self.models[name]

    async def answer(self, query: Query, model: ServedModel, number: str | None, deadline: float) -> Reply:
        """Answer a request by the version that it names, or else by the current one, or the one that is tried.

        Heatmaps are left out of the trial: they take long, and say nothing of the answers.
        """
        trial = model.trial
        if number is not None or query.maps or trial is None or not trial.comparison.takes():
            return await model.find(number).answer(query, deadline)
        return await self._answer_twice(query, model, trial, deadline)

    def list_versions(self) -> list[dict[str, str]]:
        """Return the repository index of the Open Inference Protocol."""
        rows = []
        for model in self.models.values():
            rows += [
                {"name": model.name, "version": number, "state": "READY", "reason": ""} for number in model.versions
            ]
            if trial := model.trial:
                reason = trial.comparison.judge()[1]
                rows.append({"name": model.name, "version": trial.new.number, "state": "TRIAL", "reason": reason})
        return rows

    async def close(self) -> None:
        """Wait for the last answers, and free everything."""
        while self._background:
            await asyncio.wait(self._background)
        for model in self.models.values():
            for version in (*model.versions.values(), *([model.trial.new] if model.trial else [])):
                await version.close()
        self.pools.close()

    async def _answer_twice(self, query: Query, model: ServedModel, trial: Trial, deadline: float) -> Reply:
        async def time_answer(version: ModelVersion) -> tuple[Reply, float]:
            began = time.monotonic()
            return await version.answer(query, deadline), time.monotonic() - began

        old, new = (asyncio.create_task(time_answer(version)) for version in (trial.old, trial.new))
        self._keep(self._compare(model, trial, old, new))
        first, second = (old, None) if trial.comparison.bounds.is_shadow else (new, old)
        try:
            return (await asyncio.shield(first))[0]
        except Exception:
            if second is None:
                raise
            return (await asyncio.shield(second))[0]  # no client pays for the trial

    async def _compare(
        self,
        model: ServedModel,
        trial: Trial,
        old: "asyncio.Task[tuple[Reply, float]]",
        new: "asyncio.Task[tuple[Reply, float]]",
    ) -> None:
        """Count what two versions said of a request, and end the trial when that decides."""
        await asyncio.wait((old, new))
        if model.trial is not trial or old.exception():  # overload, or the request's own fault: it says nothing
            new.exception()
            return
        if error := new.exception():
            trial.comparison.add_error()
            outcome = "error"
            self._say("trial_error", model=model.name, version=trial.new.number, error=type(error).__name__)
        else:
            (first, old_seconds), (second, new_seconds) = old.result(), new.result()
            disagreements, images = count_disagreements(first, second)
            trial.comparison.add(images, disagreements, old_seconds, new_seconds)
            outcome = "disagreement" if disagreements else "agreement"
        self._metrics.compared.labels(model.name, outcome).inc()
        self._conclude(model, trial)

    def _conclude(self, model: ServedModel, trial: Trial) -> None:
        outcome, reason = trial.comparison.judge()
        if outcome is Outcome.UNDECIDED:
            return
        model.trial = None
        gone = trial.new if outcome is Outcome.ROLLED_BACK else trial.old
        if outcome is Outcome.ROLLED_BACK:
            model.rejected.add(trial.new.digest)
        else:
            self._switch(model, trial.old, trial.new)
        self._metrics.rollouts.labels(model.name, outcome.value).inc()
        name = outcome.value.replace(" ", "_")
        self._say(name, model=model.name, version=trial.new.number, reason=reason)
        self._keep(gone.close())

    def _replace(self, model: ServedModel, old: ModelVersion, new: ModelVersion) -> None:
        """Switch to a new version, or try it first, if the old one is current."""
        old = model.versions.get(old.number, model.current)  # a trial may have ended meanwhile
        if model.trial and model.trial.old is old:  # a newer one comes before that one has proved itself
            self._say("rolled_back", model=model.name, version=model.trial.new.number, reason="a newer one was loaded")
            self._keep(model.trial.new.close())
            model.trial = None
        if self.rollout.share and old is model.current:
            model.trial = Trial(old, new, Comparison(self.rollout))
            self._say("trial_begins", model=model.name, version=new.number)
            return
        self._switch(model, old, new)
        self._say("switched", model=model.name, version=new.number, before=old.number)
        self._keep(old.close())

    async def _load(self, model: ServedModel, path: Path) -> ModelVersion:
        return await ModelVersion.open(model.name, model.next_number(), path, self._open, self.pools, self._metrics)

    def _switch(self, model: ServedModel, old: ModelVersion, new: ModelVersion) -> None:
        model.replace(old, new)
        new.metrics.set_ready(True)

    async def _fingerprint(self, path: Path) -> str:
        return await asyncio.get_running_loop().run_in_executor(self.pools.load, fingerprint, path)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside the requests; the loop alone would not keep it."""
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def count_disagreements(first: Reply, second: Reply) -> tuple[int, int]:
    """Return how many images of a request got another class or other labels, or an error from one version only, and of
    how many."""
    images = sum(len(one.probabilities_NK) for one in first.judgements) + len(first.errors)
    if first.errors.keys() != second.errors.keys():
        return images, images
    return int((first.names() != second.names()).sum()), images

"""The HTTP application: routes, and around them who may ask, how much, and what is logged of it."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from classifier.errors import ClassifierError
from classifier.serve import open_inference, plain
from classifier.serve.body import StreamedRoute, read_body
from classifier.serve.bounds import Bounds, ByteBudget, RequestError, overloaded
from classifier.serve.capture.capture import Capture
from classifier.serve.guard import HEADERS, Guard
from classifier.serve.metrics import CONTENT_TYPE, Metrics
from classifier.serve.openapi import describe_api
from classifier.serve.page.files import PAGE, PageFiles
from classifier.serve.registry import Registry, ServedModel
from classifier.serve.request_log import RequestLog, Trace, digest_of
from classifier.serve.version import ModelVersion, Query, Reply

Handler = Callable[[Request], Awaitable[Response]]
_LARGE_BODY = 1 << 18
"""Bytes from which on a body is parsed in a thread, as it would hold up the others."""
_OPEN = ("/", "/page/{name}", "/v2/health/live", "/v2/health/ready")
"""Routes that need no key."""


class App:
    """Serves the models of a registry, as ASGI.

    has_maps: whether requests may ask for heatmaps. capture: keeps requests and answers, if that is wanted.
    """

    def __init__(
        self,
        registry: Registry,
        metrics: Metrics,
        log: RequestLog,
        guard: Guard,
        bounds: Bounds | None = None,
        *,
        has_maps: bool = False,
        capture: Capture | None = None,
    ) -> None:
        self.registry, self.metrics, self.log, self.guard = registry, metrics, log, guard
        self.bounds, self._has_maps, self.capture = bounds or Bounds(), has_maps, capture
        self._budget = ByteBudget(self.bounds.all_bytes)
        self._in_progress = 0
        self._page = PageFiles()
        model, version = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
        repository = "/v2/repository/models/{model}"
        self.routes = [
            _route("GET", "/", self._show_page),
            _route("GET", "/page/{name}", self._show_page),
            _route("GET", "/models", self._describe_models),
            _route("POST", "/predict", self._predict),
            _route("POST", "/predict/{model}", self._predict),
            *(_route("POST", f"{path}/infer", self._infer) for path in (model, version)),
            _route("GET", "/v2/health/live", self._is_live),
            _route("GET", "/v2/health/ready", self._is_ready),
            _route("GET", "/v2", self._describe_server),
            *(_route("GET", path, self._describe_model) for path in (model, version)),
            *(_route("GET", f"{path}/ready", self._is_model_ready) for path in (model, version)),
            _route("POST", "/v2/repository/index", self._list_models),
            _route("POST", f"{repository}/load", self._load),
            _route("GET", "/metrics", self._render_metrics),
            _route("GET", "/openapi.json", self._describe_api),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # no websockets; uvicorn's start and end are the server's
        headers, began = Headers(scope=scope), time.monotonic()
        trace = Trace.begin(headers.get("traceparent"))
        scope["state"] = {"trace": trace}
        route, parameters = self._find_route(scope)
        facts: dict[str, Any] = {"status": 500}
        try:
            response = await self._answer(scope, receive, headers, route, parameters, facts)
        except RequestError as error:
            response = _refuse(error)
        except ClassifierError as error:
            response = _refuse(RequestError(409, str(error)))
        except Exception as error:  # its text may hold parts of the request
            self.log.write("error", error=type(error).__name__, **_where(error), **trace.fields())
            response = _refuse(RequestError(500, "the server failed to answer: see its log"))
        limit = None if isinstance(route, StreamedRoute) else self.bounds.body_seconds
        await self._send(response, limit, trace, send, scope, receive)
        seconds, path = time.monotonic() - began, route.path if route else "unknown"
        self.metrics.requests.labels(path, str(response.status_code)).inc()
        self.metrics.request_seconds.labels(path).observe(seconds)
        facts |= {"method": scope["method"], "route": path, "status": response.status_code}
        self.log.write("request", seconds=round(seconds, 6), **facts, **trace.fields())

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        headers: Headers,
        route: Route | None,
        parameters: dict[str, Any],
        facts: dict[str, Any],
    ) -> Response:
        self.guard.check_host(headers.get("host"))
        self.guard.check_origin(scope["method"], headers)
        if route is None:
            raise RequestError(404, "there is nothing at this address: see /openapi.json")
        methods = sorted(route.methods or ())
        if scope["method"] not in methods:
            raise RequestError(405, f"this address takes {', '.join(methods)}", methods=methods)
        if route.path not in _OPEN:
            key = self.guard.check_key(headers.get("authorization"), is_admin=route.path.endswith("/load"))
            facts |= {"key": key} if key else {}
        request = Request({**scope, "path_params": parameters}, receive)
        request.state.facts = facts
        if scope["method"] != "POST" or isinstance(route, StreamedRoute):
            return await route.endpoint(request)
        if self._in_progress >= self.bounds.requests:
            raise overloaded()
        self._in_progress += 1
        self.metrics.in_progress.set(self._in_progress)
        try:
            async with read_body(headers, receive, self.bounds, self._budget) as body:
                facts |= {"bytes": len(body), "digest": digest_of(body)}
                request.state.body = body
                return await route.endpoint(request)
        finally:
            self._in_progress -= 1
            self.metrics.in_progress.set(self._in_progress)

    def _find_route(self, scope: Scope) -> tuple[Route | None, dict[str, Any]]:
        for route in self.routes:
            match, child = route.matches(scope)
            if match is not Match.NONE:
                return route, child["path_params"]
        return None, {}

    async def _send(
        self, response: Response, limit: float | None, trace: Trace, send: Send, scope: Scope, receive: Receive
    ) -> None:
        own = {name for name, _ in response.raw_headers}
        response.raw_headers += [header for header in HEADERS if header[0] not in own]
        response.raw_headers.append((b"traceparent", trace.header.encode()))
        if not self.registry.is_ready:  # the client is to come back elsewhere
            response.raw_headers.append((b"connection", b"close"))
        try:
            async with asyncio.timeout(limit):
                await response(scope, receive, send)
        except TimeoutError:  # uvicorn closes the connection of an answer that was not sent
            self.log.write("slow_client", **trace.fields())

    async def _predict(self, request: Request) -> Response:
        model = self.registry.find(request.path_params.get("model"))
        kind, parameters = request.headers.get("content-type", ""), request.query_params
        if unknown := parameters.keys() - {"top", "maps", "version"}:
            raise RequestError(400, f"{sorted(unknown)[0][:40]!r} is unknown: there are top, maps and version")
        query = await self._parse(request, plain.read_query, kind, parameters, self.bounds)
        number = parameters.get("version")
        if query.maps and (reason := self._explain_missing_maps(model.find(number))):
            raise RequestError(400, f"there are no heatmaps: {reason}")
        reply = await self._ask(request, query, model, number)
        return _json(*plain.describe(reply, query))

    async def _infer(self, request: Request) -> Response:
        model, number = self.registry.find(request.path_params["model"]), request.path_params.get("version")
        length = request.headers.get(open_inference.HEADER_LENGTH)
        query, document = await self._parse(request, open_inference.read_query, length, self.bounds)
        reply = await self._ask(request, query, model, number)
        body, json_length = open_inference.render(reply, document)
        headers = {} if json_length is None else {open_inference.HEADER_LENGTH: str(json_length)}
        kind = "application/json" if json_length is None else "application/octet-stream"
        return Response(body, media_type=kind, headers=headers)

    async def _parse(self, request: Request, read: Callable[..., Any], *args: Any) -> Any:
        body = request.state.body
        if len(body) < _LARGE_BODY:
            return read(body, *args)
        return await asyncio.get_running_loop().run_in_executor(self.registry.pools.decode, read, body, *args)

    async def _ask(self, request: Request, query: Query, model: ServedModel, number: str | None) -> Reply:
        """Answer a query before its deadline. RequestError (429) if that is not possible."""
        seconds, limit = self.bounds.deadline_seconds, self.bounds.heatmap_seconds
        try:
            async with asyncio.timeout(max(seconds, limit) if query.maps else seconds):
                reply = await self.registry.answer(query, model, number, time.monotonic() + seconds)
        except TimeoutError:
            if query.maps:
                raise RequestError(429, f"heatmaps were not drawn within {limit:g} s: try again later", 1.0) from None
            raise overloaded() from None
        request.state.facts |= {"model": reply.version.name, "version": reply.version.number, "images": len(query)}
        if self.capture:
            self.capture.add(query, reply, request.state.trace.trace_id)
        return reply

    @property
    def _can_load(self) -> bool:
        """Whether models are loaded by request; not where another process would answer with the version before."""
        return any(route.path.endswith("/load") for route in self.routes)

    def _explain_missing_maps(self, version: ModelVersion) -> str | None:
        return version.why_no_heatmaps if self._has_maps else "they are off (--maps)"

    async def _show_page(self, request: Request) -> Response:
        name = request.path_params.get("name", PAGE)
        return self._page.respond(name, request.headers.get("if-none-match", ""))

    async def _describe_models(self, request: Request) -> Response:
        versions = [model.current for model in self.registry.models.values()]
        rows = [plain.describe_model(one, self.bounds, self._explain_missing_maps(one)) for one in versions]
        return _json(200, {"models": rows})

    async def _is_live(self, request: Request) -> Response:
        return _json(200, {"live": True})

    async def _is_ready(self, request: Request) -> Response:
        is_ready = self.registry.is_ready
        return _json(200 if is_ready else 503, {"ready": is_ready})

    async def _is_model_ready(self, request: Request) -> Response:
        version = self.registry.find(request.path_params["model"]).find(request.path_params.get("version"))
        is_ready = self.registry.is_ready
        return _json(200 if is_ready else 503, {"name": version.name, "ready": is_ready})

    async def _describe_server(self, request: Request) -> Response:
        return _json(200, open_inference.describe_server(can_load=self._can_load))

    async def _describe_model(self, request: Request) -> Response:
        model = self.registry.find(request.path_params["model"])
        version = model.find(request.path_params.get("version"))
        return _json(200, open_inference.describe_model(version, [*model.versions]))

    async def _list_models(self, request: Request) -> Response:
        return _json(200, self.registry.list_versions())

    async def _load(self, request: Request) -> Response:
        """Load a model again, if it has changed on disk. Triton's body and its parameters have no meaning here."""
        return _json(200, {"loaded": await self.registry.reload([request.path_params["model"]])})

    async def _render_metrics(self, request: Request) -> Response:
        self.metrics.body_bytes.set(self._budget.taken)
        return Response(self.metrics.render(), media_type=CONTENT_TYPE)

    async def _describe_api(self, request: Request) -> Response:
        paths = {route.path for route in self.routes}
        document = describe_api(self.bounds, paths, has_keys=self.guard.keys is not None)
        document["paths"] |= {one.path: one.description for one in self.routes if isinstance(one, StreamedRoute)}
        return _json(200, document)


def _route(method: str, path: str, handler: Handler) -> Route:
    return Route(path, handler, methods=[method])


def _json(status: int, document: Any) -> Response:
    return Response(json.dumps(document), status, media_type="application/json")


def _refuse(error: RequestError) -> Response:
    response = _json(error.status, {"error": error.message})
    if error.retry_seconds is not None:
        response.headers["retry-after"] = str(error.retry_seconds)
    if error.methods:
        response.headers["allow"] = ", ".join(error.methods)
    if error.status == 401:
        response.headers["www-authenticate"] = "Bearer"
    return response


def _where(error: BaseException) -> dict[str, str]:
    """Return where an exception was raised, without its text."""
    traceback = error.__traceback__
    while traceback and traceback.tb_next:
        traceback = traceback.tb_next
    if traceback is None:
        return {}
    code = traceback.tb_frame.f_code
    return {"file": code.co_filename.rpartition("classifier/")[2], "line": str(traceback.tb_lineno)}

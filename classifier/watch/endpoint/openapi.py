"""What the OpenAPI document says of POST /watch."""

from typing import Any

_TEXT = {"type": "string"}
_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
_PARAMETERS = {
    "alert": (
        {"type": "array", "items": _TEXT},
        "a rule, as in 'cat > 0.9 for 2s until < 0.7 every 60s'; may be repeated",
    ),
    "fps": ({"type": "number", "minimum": 0.001, "maximum": 1000, "default": 5}, "frames a second to answer, at most"),
    "half_life": (
        {"type": "number", "minimum": 0, "maximum": 86400, "default": 0.5},
        "seconds after which an answer counts half as much",
    ),
    "motion": (
        {"type": "number", "minimum": 0, "maximum": 255, "default": 0},
        "frames whose pixels differ by less keep the last answer",
    ),
    "region": (_TEXT, "part of each frame to answer: x,y,w,h as fractions of its size"),
    "version": (_TEXT, "of the model; else the one that answers"),
}
_REFUSALS = {
    "400": "malformed",
    "401": "no key",
    "403": "not allowed",
    "404": "not here",
    "408": "too slow",
    "409": "the model has changed on disk",
    "413": "too large",
    "415": "another form",
    "421": "another host",
    "422": "no frame can be answered",
    "429": "busy",
    "503": "the server is stopping",
}


def describe_watch(path: str) -> dict[str, Any]:
    """Return the path item."""
    refusals: dict[str, Any] = {status: {"description": text, "content": _ERROR} for status, text in _REFUSALS.items()}
    refusals["429"]["headers"] = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}}}
    lines = (
        "a line of JSON for each event: alert, alert_ended, answer; the last one is finished, or failed with an error"
    )
    answer = {"200": {"description": lines, "content": {"application/x-ndjson": {"schema": _TEXT}}}}
    parameters = [
        {"name": name, "in": "query", "required": False, "schema": schema, "description": text}
        for name, (schema, text) in _PARAMETERS.items()
    ]
    operation = {
        "summary": "Watch a film",
        "parameters": parameters,
        "requestBody": {"content": {"video/*": {"schema": {"type": "string", "format": "binary"}}}},
        "responses": answer | refusals,
    }
    names = [word[1:-1] for word in path.split("/") if word.startswith("{")]
    own = [{"name": name, "in": "path", "required": True, "schema": _TEXT} for name in names]
    return {"post": operation} | ({"parameters": own} if own else {})

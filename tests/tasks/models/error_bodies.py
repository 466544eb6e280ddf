"""Bodies of errors as real servers send them: status, body, what it is, and words of the provider.

What it is: a status of `explanations`, or what ends a run: key, quota, model or address. `+` marks
a failure that may pass, a `$` one that may have been billed.
"""

from __future__ import annotations

import json

_FLAGGED = {
    "error": {
        "code": 403,
        "message": "meta-llama/llama-4 requires moderation on OpenInference. Your input was "
        'flagged for "violence". No credits were charged.',
        "metadata": {"reasons": ["violence"], "flagged_input": "...", "provider_name": "x"},
    }
}
_GEMINI_QUOTA = [
    {
        "error": {
            "code": 429,
            "message": "You exceeded your current quota, please check your plan.",
            "status": "RESOURCE_EXHAUSTED",
            "details": [
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"},
            ],
        }
    }
]
_GEMINI_KEY = [
    {
        "error": {
            "code": 400,
            "message": "API key not valid. Please pass a valid API key.",
            "status": "INVALID_ARGUMENT",
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "API_KEY_INVALID",
                    "domain": "googleapis.com",
                }
            ],
        }
    }
]
_AZURE_FILTER = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content "
        "management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {"violence": {"filtered": True, "severity": "high"}},
        },
    }
}
_OPENROUTER_UPSTREAM = {
    "error": {
        "message": "Provider returned error",
        "code": 502,
        "metadata": {
            "raw": '{"error": {"message": "The engine crashed", "type": "engine_error"}}',
            "provider_name": "Together",
        },
    },
    "user_id": "user_1",
}
_HTML = (
    "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway"
    "</h1></center>\r\n<hr><center>nginx/1.25.3</center>\r\n</body>\r\n</html>\r\n"
)


def _openai(message: str, **fields: object) -> dict[str, object]:
    return {"error": {"message": message, "type": "x", "param": None, "code": None} | fields}


BODIES: dict[str, tuple[int, object, str, str]] = {
    "openai: key": (
        401,
        _openai("Incorrect API key provided: sk-1.", code="invalid_api_key"),
        "key",
        "Incorrect API key provided",
    ),
    "openai: project": (
        403,
        _openai("Project `p` does not have access to model `gpt-4o`", code="model_not_found"),
        "key",
        "does not have access",
    ),
    "openai: country": (
        403,
        _openai("Country, region, or territory not supported"),
        "key",
        "territory not supported",
    ),
    "openai: quota": (
        429,
        _openai("You exceeded your current quota", type="insufficient_quota"),
        "quota",
        "exceeded your current quota",
    ),
    "openai: tokens a minute": (
        429,
        _openai(
            "Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 29000, "
            "Requested 5000. Please try again in 8.2s.",
            type="tokens",
            code="rate_limit_exceeded",
        ),
        "rate_limited+",
        "Limit 30000",
    ),
    "openai: model": (
        404,
        _openai("The model `gpt-9` does not exist", code="model_not_found"),
        "model",
        "gpt-9",
    ),
    "openai: parameter": (
        400,
        _openai("Unsupported value: 'temperature' does not support 0", param="temperature"),
        "failed",
        "does not support 0",
    ),
    "openai: server": (500, _openai("The server had an error"), "failed+$", "had an error"),
    "azure: filter": (400, _AZURE_FILTER, "filtered", "content management policy"),
    "azure: key": (
        401,
        {"statusCode": 401, "message": "Access denied due to invalid subscription key."},
        "key",
        "invalid subscription key",
    ),
    "azure: deployment": (
        404,
        {"error": {"code": "DeploymentNotFound", "message": "The API deployment does not exist."}},
        "model",
        "API deployment",
    ),
    "vllm: flat": (
        400,
        {"object": "error", "message": "bad top_p", "type": "BadRequestError", "code": 400},
        "failed",
        "bad top_p",
    ),
    "vllm: model": (
        404,
        {
            "error": {
                "message": "The model `x.y` does not exist.",
                "type": "NotFoundError",
                "param": None,
                "code": 404,
            }
        },
        "model",
        "x.y",
    ),
    "ollama: text": (404, {"error": 'model "llama3.2" not found'}, "model", "llama3.2"),
    "ollama: busy": (
        503,
        {"error": "server busy, please try again.  maximum pending requests exceeded"},
        "failed+",
        "server busy",
    ),
    "lm studio: text": (
        400,
        {"error": "'response_format.type' must be 'json_schema' or 'text'"},
        "failed",
        "must be 'json_schema'",
    ),
    "lm studio: path": (
        404,
        {"error": "Unexpected endpoint or method. (POST /chat)"},
        "address",
        "Unexpected endpoint",
    ),
    "openrouter: upstream": (502, _OPENROUTER_UPSTREAM, "failed+$", "The engine crashed"),
    "openrouter: flagged": (403, _FLAGGED, "refused", "Your input was flagged"),
    "openrouter: credits": (
        402,
        {"error": {"code": 402, "message": "This request requires more credits"}},
        "quota",
        "more credits",
    ),
    "litellm: code as text": (
        400,
        {
            "error": {
                "message": "litellm.BadRequestError: OpenAIException - Image too small",
                "type": "invalid_request_error",
                "param": None,
                "code": "400",
            }
        },
        "failed",
        "Image too small",
    ),
    "litellm: policy": (
        400,
        {
            "error": {
                "message": "litellm.ContentPolicyViolationError: blocked",
                "type": "ContentPolicyViolationError",
                "code": "400",
            }
        },
        "filtered",
        "blocked",
    ),
    "litellm: key": (
        400,
        {
            "error": {
                "message": "Authentication Error, Invalid proxy server token passed",
                "type": "auth_error",
                "code": "400",
            }
        },
        "key",
        "Invalid proxy server token",
    ),
    "gemini: quota a minute": (429, _GEMINI_QUOTA, "rate_limited+", "current quota"),
    "gemini: key": (400, _GEMINI_KEY, "key", "API key not valid"),
    "fastapi: path": (404, {"detail": "Not Found"}, "address", "Not Found"),
    "fastapi: field": (
        422,
        {"detail": [{"loc": ["body", "n"], "msg": "extra fields not permitted", "type": "extra"}]},
        "failed",
        "extra fields not permitted",
    ),
    "mistral: nested": (
        422,
        {"object": "error", "message": {"detail": [{"loc": ["body", "n"], "msg": "Extra inputs"}]}},
        "failed",
        "Extra inputs",
    ),
    "anthropic: overloaded": (
        529,
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        "failed+",
        "Overloaded",
    ),
    "plain text": (
        503,
        "upstream connect error or disconnect/reset before headers",
        "failed+",
        "upstream connect error",
    ),
    "plain refusal": (403, "Your prompt was flagged by our moderation", "refused", "moderation"),
    "forbidden, of unknown cause": (
        403,
        "<html><h1>Blocked by rule 7</h1></html>",
        "failed",
        "rule 7",
    ),
    "html": (502, _HTML, "failed+$", "502 Bad Gateway"),
    "gateway": (504, "", "timed_out+$", "no reason given"),
    "empty": (400, "", "failed", "no reason given"),
    "nested without end": (400, "[" * 200_000, "failed", "[[["),
    "a lone surrogate": (400, '{"error": "bad \\ud83d image"}', "failed", "bad image"),
    "numbers": (400, {"error": {"message": 7, "code": 5007}}, "failed", "no reason given"),
    "in a list": (
        500,
        {"errors": [{"message": "first"}, {"message": "second"}]},
        "failed+$",
        "first",
    ),
    "a wrong model, told by its server": (
        400,
        {"error": {"message": "foo/bar is not a valid model ID", "code": 400}},
        "model",
        "not a valid model ID",
    ),
}
"""By name of the server."""

IN_REPLIES: dict[str, tuple[object, str, str]] = {
    "a number": ({"error": {"message": "Rate limit: free", "code": 429}}, "rate_limited+", "free"),
    "a number of the server's": ({"error": {"message": "broke", "code": 502}}, "failed+$", "broke"),
    "words": ({"error": "Service is temporarily overloaded"}, "failed+", "overloaded"),
    "words of a limit": ({"error": {"message": "Too many requests"}}, "rate_limited+", "Too many"),
    "no known word": ({"error": {"message": "Oops"}}, "failed", "Oops"),
    "a key": ({"error": {"message": "Invalid API key", "code": 401}}, "key", "Invalid API key"),
    "a flagged input": (
        {"error": {"message": "Input was flagged", "code": 403}},
        "refused",
        "flagged",
    ),
    "FastAPI": ({"detail": "Model is loading"}, "failed+", "loading"),
    "Cloudflare": (
        {"success": False, "errors": [{"code": 3040, "message": "Capacity exceeded"}]},
        "failed+",
        "Capacity exceeded",
    ),
    "a choice that broke off": (
        {
            "choices": [
                {
                    "finish_reason": "error",
                    "error": {"code": 502, "message": "Upstream idle"},
                    "message": {"role": "assistant", "content": "{"},
                }
            ],
            "usage": {"prompt_tokens": 5},
        },
        "failed+$",
        "Upstream idle",
    ),
}
"""Bodies of replies with status 200 that hold an error."""


def as_text(body: object) -> str:
    """The body as it is sent."""
    return body if isinstance(body, str) else json.dumps(body)

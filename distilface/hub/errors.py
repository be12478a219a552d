"""What a Hub's answer means where a call fails: whether to repeat the call, and one sentence with the remedy."""

import json
import re

from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from distilface.storage import disk_is_full

_PASSING = (408, 429, 500, 502, 503, 504)
_LOG_IN = "log in with a token that may write (hf auth login)"


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that a call failed with, if there was an answer."""
    response = getattr(error, "response", None)
    return None if response is None else int(response.status_code)


def cause(error: BaseException) -> BaseException:
    """Return what a transfer failed with: the client wraps it."""
    return error.__cause__ if type(error) is RuntimeError and error.__cause__ else error


def _is_connection(error: BaseException) -> bool:
    """Say whether there was no answer: errors of the client (httpx, or httpx2), or of the system."""
    client = type(error).__module__.partition(".")[0].rstrip("2") in ("httpx", "httpcore")
    return client or (isinstance(error, OSError) and not isinstance(error, HfHubHTTPError) and not disk_is_full(error))


def passes(error: BaseException) -> bool:
    """Say whether the same call may go through a moment later."""
    unread = isinstance(error, json.JSONDecodeError)  # a proxy's page where the Hub's answer should be
    lost = _is_connection(error) and not isinstance(error, OfflineModeIsEnabled)
    return unread or lost or status_of(error) in _PASSING


def asked_wait(error: BaseException) -> int | None:
    """Return the seconds that the Hub asks to wait, if it does."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    if spent := re.search(r";\s*r=0\s*;\s*t=(\d+)", headers.get("RateLimit", "")):  # none are left, for t seconds
        return int(spent[1])
    asked = str(headers.get("Retry-After", "")).strip()
    return int(asked) if asked.isdigit() else None


def _words(error: BaseException) -> str:
    """Return what the Hub said of its own, in brackets; never the address, which may be signed."""
    said = " ".join(str(getattr(error, "server_message", None) or "").split())
    return f" (the Hub says: {said:.200})" if said else ""


def told(error: BaseException, repo_id: str, branch: str, endpoint: str) -> str:
    """Say in one sentence what the Hub refused, and the remedy.

    Args:
        error: what a call to the Hub raised.
        repo_id: the repository that was written to.
        branch: the branch of it.
        endpoint: the Hub's address.

    Raises:
        BaseException: the error itself, if it is none of the Hub, of the network or of the user.
    """
    if not (_is_connection(error) or isinstance(error, HfHubHTTPError | ValueError | RuntimeError)):
        raise error
    status = status_of(error)
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so that the Hub is not asked; unset it to publish"
    if status is None:
        return _unanswered(error, endpoint)
    later = "run it again in a minute"
    known = {
        401: f"the Hub does not accept this login (401); {_LOG_IN}",
        403: f"this login may not write to {repo_id} (403){_words(error)}; {_LOG_IN}, or add --create-pr",
        404: f"there is no {repo_id}, or no {branch} in it, that this login may see (404); correct --repo-id or "
        f"--revision, or {_LOG_IN}",
        409: f"{repo_id} is being changed by somebody else (409){_words(error)}; {later}",
        412: f"{repo_id} is being changed by somebody else (412){_words(error)}; {later}",
        429: f"the Hub has had too many calls from you (429); run it again in {asked_wait(error) or 300} seconds",
    }
    if status >= 500:
        return f"the Hub has failed ({status}){_words(error)}; run it again later, status.huggingface.co tells when"
    return known.get(status, f"the Hub has refused it ({status}){_words(error)}; mend that and run it again")


def _unanswered(error: BaseException, endpoint: str) -> str:
    if isinstance(error, ValueError) and not isinstance(error, json.JSONDecodeError):
        return f"the Hub's library refuses it: {' '.join(str(error).split()):.300}; mend that and run it again"
    return (
        f"no answer came from the Hub at {endpoint} ({type(error).__name__}); look at the network, then run it again: "
        "what was transferred is not sent twice"
    )

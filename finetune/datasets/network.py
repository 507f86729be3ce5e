"""Whether there is a network at all, found out in seconds."""

from __future__ import annotations

import http.client
import threading
import urllib.error
import urllib.request


def answers(url: str, seconds: float = 10.0) -> bool:
    """Whether the server of `url` answers within `seconds`, through the proxy where one is set.

    Asked in a thread, because looking up a name knows no time limit.
    """
    answered = threading.Event()

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=seconds):
                answered.set()
        except urllib.error.HTTPError as error:
            # a refusal is an answer; a gateway that fails on the way is none
            if error.code < 500:
                answered.set()
        except (OSError, http.client.HTTPException):
            pass

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return answered.is_set()

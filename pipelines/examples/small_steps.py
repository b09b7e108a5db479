"""Small steps of one's own: a message to a webhook, and how such steps are placed on a cluster.

KFP carries a component's own source to the cluster and nothing around it: what a body needs, it imports or defines.
"""

from typing import Any

from driftline.components.declaration import component
from driftline.pipelines.profile import Profile


@component(image="kernels")
def tell_chat(text: str, report_uri: str = "", webhook: str = ""):
    """Tell people something: in the step's log, and as JSON to a webhook, as chats take it.

    For systems rather than people the drift pipeline has `notify_url`, which takes CloudEvents.

    Args:
        text: What there is to say.
        report_uri: Where there is more to read; empty for nowhere.
        webhook: URL that takes a POST of {"text": ...}; empty to log only. Whoever may see the run may see it.
    """
    import json
    import logging
    import re
    import urllib.request
    from http.client import HTTPException

    timeout_s = 10  # a chat answers within a second; a proxy that drops packets never does
    message = f"{text}; see {report_uri}" if report_uri else text
    logging.getLogger("driftline").warning(message)
    if not webhook:
        return
    place = re.fullmatch(r"https?://([^\s/?#@]+)([/?#]\S*)?", webhook)
    if place is None:
        raise SystemExit(f"webhook: expected a URL such as https://chat.example/hooks/1; not sent: {message}")
    body = json.dumps({"text": message}).encode()
    try:
        request = urllib.request.Request(webhook, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=timeout_s):
            pass
    except (OSError, ValueError, HTTPException) as error:
        # Its host alone is shown: the rest of a webhook's URL is its password.
        raise SystemExit(f"webhook {place[1]}: the message was not taken ({error}): {message}") from error


def place_small(profile: Profile, task: Any) -> Any:
    """Place a task of a small step, in the one of Driftline's images that is smaller: it holds Python and kfp.

    It is never taken from KFP's cache: a message is sent again, and the time is read again, however alike the runs are.

    Args:
        profile: of the cluster.
        task: the KFP task.

    Returns:
        The task.
    """
    task.set_container_image(profile.image("kernels")).set_caching_options(False)
    task.set_cpu_request("100m").set_memory_request("512Mi")
    return profile.place(task)

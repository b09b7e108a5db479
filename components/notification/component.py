"""KFP declarations of the notification's steps."""

from driftline.components.declaration import component


@component(image="kernels")
def notify(report_uri: str, notify_url: str = ""):
    """Post a CloudEvent, driftline.drift.detected, to a URL where a drift run found drift.

    Receivers are Knative's brokers and sinks, Argo Events' webhooks, and whatever else takes a POST of JSON. The
    variable DRIFTLINE_NOTIFY_TOKEN may hold a token, which is sent as a bearer's. Texts are never sent.

    Args:
        report_uri: Where the run's report is, an output of report and of the drift pipeline; its result lies beside it.
        notify_url: URL of the receiver, http:// or https://, seen by all who see the run; empty for that of the
            variable DRIFTLINE_NOTIFY_URL, without which nothing is sent.
    """
    from driftline.components.notification import step

    step.notify(report_uri=report_uri, notify_url=notify_url)


@component(image="kernels")
def fail_on_drift(report_uri: str, asked_for: bool = True):
    """Fail, with one line that says why, where a drift run found drift: the run turns red.

    Do not retry it: it would fail again.

    Args:
        report_uri: Where the run's report is, an output of report and of the drift pipeline; its result lies beside it.
        asked_for: Whether to fail; if not, the step succeeds.
    """
    from driftline.components.notification import step

    step.fail_on_drift(report_uri=report_uri, asked_for=asked_for)

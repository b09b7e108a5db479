from __future__ import annotations

import json
import string
from datetime import UTC, datetime, timedelta, timezone

import pytest
import requests
from cloudevents.http import from_http
from hypothesis import given
from hypothesis import strategies as st

from driftline.components.errors import UsageError
from driftline.components.events import STRUCTURED, check_notify_url, drift_event, rfc3339, shown, structured

text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)
moments = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]))


@given(text, text, moments, st.dictionaries(text, st.none() | st.floats(allow_nan=False, allow_infinity=False) | text))
def test_a_receivers_library_reads_any_event(identity: str, subject: str, moment: datetime, data: dict) -> None:
    made = drift_event(identity, "/driftline/drift-runs", subject, moment, data)
    event = from_http({"content-type": STRUCTURED}, structured(made))
    assert (event["id"], event["subject"], event["type"]) == (identity, subject, "driftline.drift.detected")
    assert event.get_data() == data
    assert structured(made) == structured(drift_event(identity, "/driftline/drift-runs", subject, moment, data))
    assert abs(datetime.fromisoformat(event["time"]) - moment) < timedelta(milliseconds=1)
    assert event["time"].endswith("Z")


def test_names_that_are_no_unicode_are_sent_all_the_same() -> None:
    made = drift_event("1", "/s", "gs://x/\udce9", datetime(2026, 1, 1, tzinfo=UTC), {})
    assert json.loads(structured(made))["subject"] == "gs://x/?"


def test_times() -> None:
    assert rfc3339(datetime.fromisoformat("2026-11-30T01:05:00.5+01:00")) == "2026-11-30T00:05:00.500Z"


@pytest.mark.parametrize(
    "url",
    [
        "", "  ", "http://h", "https://events.example.org/drift", "HTTPS://Events.Example.org:8443?x=1",
        "http://broker-ingress.knative-eventing.svc.cluster.local/ns/default", "http://127.0.0.1:8080/a/b?c=d&e",
        "http://[::1]:80/x", "http://h.svc.:1", "https://h/a%20b/~{}'()*!,;@:é", " https://h/x\n",
    ],
)  # fmt: skip
def test_urls_to_which_events_can_be_sent(url: str) -> None:
    check_notify_url(url)
    if url.strip():
        requests.Request("POST", url.strip()).prepare()


@pytest.mark.parametrize(
    "url",
    [
        "events.example.org/s3cr3t", "/s3cr3t", "ftp://h/s3cr3t", "http:/h/s3cr3t", "http:///s3cr3t", "http://",
        "https://h:99999/s3cr3t", "https://h:x/s3cr3t", "https://h/s3cr3t with a space", "https://h/s3cr3t#part",
        "https://h\\other/s3cr3t", "https://-h/s3cr3t", "https://h..i/s3cr3t", "https://[h]/s3cr3t", "gs://h/s3cr3t",
        "https://h/s3cr3t\nx", "https://bücher.example/s3cr3t", "https://{{h}}/s3cr3t", "javascript:s3cr3t",
    ],
)  # fmt: skip
def test_urls_to_which_none_can_be_sent(url: str) -> None:
    with pytest.raises(UsageError, match=r"\Anotify_url: expected http:// or https://, a host and a path") as caught:
        check_notify_url(url)
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://me:s3cr3t@h/x", "http://s3cr3t@h", "https://h/x@y:s3cr3t@"])
def test_a_login_in_the_url_is_refused(url: str) -> None:
    if url.startswith("https://h/"):
        check_notify_url(url)  # no login: it stands in the path
        return
    with pytest.raises(UsageError, match=r"\ADRIFTLINE_NOTIFY_URL: expected no login in the URL") as caught:
        check_notify_url(url, "DRIFTLINE_NOTIFY_URL")
    assert "s3cr3t" not in str(caught.value)


url_like = st.text(string.ascii_letters + "/:@[]?#.-_ \\%{}\u00e9\n0123456789", max_size=30)


@given(url_like | url_like.map("http://{}".format) | st.text().map("https://h/{}".format))
def test_whatever_is_let_through_has_one_host_to_all_who_read_it(url: str) -> None:
    try:
        check_notify_url(url)
    except UsageError:
        return
    if url.strip():
        prepared = requests.Request("POST", url.strip()).prepare()
        host = shown(url.strip()).partition("://")[2].lower()
        assert str(prepared.url).lower().startswith((f"http://{host}", f"https://{host}"))


def test_of_a_url_the_host_alone_is_shown() -> None:
    assert shown("https://events.example.org:8443/services/T0/s3cr3t?key=s3cr3t") == "https://events.example.org:8443"

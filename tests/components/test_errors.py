from __future__ import annotations

import copy
import pickle
import re
import string
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.components.errors import (
    DataError,
    DriftlineError,
    InputError,
    StorageConflict,
    StorageError,
    UsageError,
    reason_first,
)

# A reason is any line that begins with no path of its own and holds no colon that could be taken for a path's end.
names = st.text(string.ascii_letters + string.digits + "._=-{}é文", min_size=1, max_size=12)
hours = st.builds("hour=2026-11-30T{:02d}:{:02d}".format, st.integers(0, 23), st.integers(0, 59))
below = st.lists(names | hours | st.just("date=2026-11-01..2026-11-30"), min_size=1, max_size=5)
uris = st.builds(
    lambda begin, parts, file: begin + "/".join([*parts, file]),
    st.sampled_from(
        ["gs://lake/", "file:///", "/", "~/", "./", "../", "s3://b/", "C:\\data\\", "d:/", "http://h:8080/"]
    ),
    below,
    st.sampled_from(["part-0.parquet", "manifest.json", "a:b.csv", "texts.jsonl.gz"]),
)
windows_paths = uris.map(lambda uri: uri if "://" in uri else uri.replace("/", "\\"))
spaced = st.builds("{}/my folder/part 0 of 2.parquet".format, st.sampled_from(["gs://lake", "/data", "C:\\data"]))
places = uris | spaced | windows_paths.filter(lambda path: not path.startswith("\\") and path[:1] not in "~.")
kinds = st.sampled_from(["", "model ", "history record ", "current "])
words = st.text(string.ascii_letters + " ,;'()=-0123456789{}é文", min_size=1, max_size=60).map(str.strip)
reasons = words.filter(lambda text: text and text[0] not in "('")
messages = st.text() | st.lists(
    st.sampled_from([*": /\\()'\"\n", ": ", "gs://", "/a/b", "C:\\x", "a", "model ", "x.y", "hour=T12:00"]), max_size=14
).map("".join)


@given(kinds, places, reasons)
def test_the_reason_stands_before_the_file_that_it_is_about(kind: str, place: str, reason: str) -> None:
    assert reason_first(f"{kind}{place}: {reason}") == f"{reason} ({kind}{place})"


@given(places, st.sampled_from(["column 'id', row 7", "line 3", "row 2 (id 'a')"]), reasons)
def test_where_in_the_file_stays_with_the_reason(place: str, where: str, reason: str) -> None:
    assert reason_first(f"{place}: {where}: {reason}") == f"{where}: {reason} ({place})"


@given(st.from_regex(r"[a-z]+(_[a-z]+)*", fullmatch=True), reasons)
def test_a_settings_name_stays_in_front(name: str, reason: str) -> None:
    for message in (f"{name}: {reason}", f"{name} 'x': {reason}", f"{name}: {reason}: gs://lake/x"):
        assert reason_first(message) == message


@given(messages)
def test_nothing_is_lost_and_nothing_moves_twice(message: str) -> None:
    told = reason_first(message)
    assert reason_first(told) == told
    assert len(told.splitlines()) <= 1
    # The same letters, but for what joins them: a colon becomes two brackets, a line's end a space.
    letters = re.compile(r"[\s:()]")
    assert sorted(letters.sub("", told)) == sorted(letters.sub("", message))


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("", ""),
        ("expected one thing, got two", "expected one thing, got two"),
        ("gs://lake/x:", "gs://lake/x:"),
        ("gs://lake/x: ", "gs://lake/x:"),
        ("gs://a/b: gs://c/d: is damaged", "is damaged (gs://a/b) (gs://c/d)"),
        ("gs://a: /tmp/x is missing; put it: there", "/tmp/x is missing; put it: there (gs://a)"),
        ("'/a b' does not name a file or folder: give a path", "'/a b' does not name a file or folder: give a path"),
        ("out 'gs://lake/{dates}': {dates} is unknown", "{dates} is unknown (out 'gs://lake/{dates}')"),
        ("where 'a = 3': null is compared by =", "where 'a = 3': null is compared by ="),
        ("kernel 2/4: ended without saying why", "kernel 2/4: ended without saying why"),
        ("texts/part-0.jsonl: line 3 is odd", "line 3 is odd (texts/part-0.jsonl)"),
        (
            "model sentence-transformers/all-MiniLM-L6-v2: could not be loaded",
            "could not be loaded (model sentence-transformers/all-MiniLM-L6-v2)",
        ),
        (
            "gs://lake/date=yesterday (now gs://lake/date=2026-11-29): there is no dataset of that day",
            "there is no dataset of that day (gs://lake/date=yesterday (now gs://lake/date=2026-11-29))",
        ),
        ("drift found: p = 0.0020 at level 0.05; report gs://lake/report.html",) * 2,
    ],
)
def test_messages_as_they_are(message: str, told: str) -> None:
    assert reason_first(message) == told


@pytest.mark.parametrize("kind", [DriftlineError, InputError, UsageError, DataError, StorageError, StorageConflict])
def test_an_error_crosses_processes_as_it_is(kind: type[DriftlineError]) -> None:
    error = kind("/data/x: is damaged")
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(other), str(other)) == (kind, "/data/x: is damaged")
    assert kind.__module__ == "driftline.components.errors"
    code = (
        "import pickle, sys; from driftline.components.errors import DataError; "
        "sys.stdout.buffer.write(pickle.dumps(DataError('/x: is damaged')))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, check=True)
    assert str(pickle.loads(done.stdout)) == "/x: is damaged"


@pytest.mark.parametrize("unit", ["a/ ", "a/", "a-", "gs://a/b (", "'/"])
def test_a_long_message_is_told_too(unit: str) -> None:
    assert reason_first(f"/{unit * 1500}: x").startswith(("x", "/"))

"""The double answers what the server was seen to answer, request by request."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.kubeflow_double import API, KubeflowDouble

RECORDED = [
    json.loads(line) for line in (Path(__file__).parent / "kubeflow_api.jsonl").read_text(encoding="utf-8").splitlines()
]
"""What was asked of the API server of KFP 2.17.0, and how its answers begin; `<7>` is one id throughout."""
IDENTITY = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
PIPELINE = b"""
pipelineInfo: {name: driftline-drift}
root:
  dag: {tasks: {}}
  inputDefinitions:
    parameters:
      reference: {parameterType: STRING}
      current: {parameterType: STRING}
      out: {parameterType: STRING}
      level: {parameterType: NUMBER_DOUBLE, isOptional: true}
      tasks: {parameterType: NUMBER_INTEGER, isOptional: true}
      history: {parameterType: STRING, isOptional: true}
---
platforms: {kubernetes: {}}
"""


def uploaded() -> tuple[dict[str, str], bytes]:
    body = b'--b\r\nContent-Disposition: form-data; name="uploadfile"; filename="drift.yaml"\r\n\r\n' + PIPELINE
    return {"Content-Type": "multipart/form-data; boundary=b"}, body + b"\r\n--b--\r\n"


def expected(answer: str, known: dict[str, str]) -> re.Pattern[str]:
    """What an answer begins with: ids that are known, any others, and any times."""
    pattern, seen = "", set[str]()
    for part in re.split(r"(<(?:\d+|time)>)", answer):
        name = part[1:-1]
        if not re.fullmatch(r"<(\d+|time)>", part):
            pattern += re.escape(part)
        elif name == "time":
            pattern += r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
        elif name in known:
            pattern += known[name]
        elif name in seen:
            pattern += f"(?P=id{name})"
        else:
            pattern += f"(?P<id{name}>{IDENTITY})"
            seen.add(name)
    return re.compile(pattern)


def replay(double: KubeflowDouble, change: Callable[[str], str] = lambda answer: answer) -> str:
    """Ask what was asked of the server; the first that is answered otherwise, or nothing."""
    known: dict[str, str] = {}

    def filled(text: str) -> str:
        return re.sub(r"<(\d+)>", lambda match: known[match[1]], text)

    for one in RECORDED:
        headers, content = (
            uploaded() if "/upload" in one["path"] else ({}, filled(json.dumps(one.get("body"))).encode())
        )
        status, answer = double.answer(one["method"], API + filled(one["path"]), headers, content)
        text = change(json.dumps(answer, separators=(",", ":"), ensure_ascii=False))
        found = expected(one["answer"], known).match(text)
        if status != one["status"] or found is None:
            return f"{one['of']}: {status} {text}, expected {one['status']} {one['answer']}"
        known |= {name.removeprefix("id"): value for name, value in found.groupdict().items()}
    return ""


def test_it_answers_as_the_server_did() -> None:
    assert len(RECORDED) >= 60
    assert replay(KubeflowDouble(tick=0)) == ""


@pytest.mark.parametrize("broken", ["recurringRuns", "display_name", "DISABLE", "not optional"])
def test_another_answer_would_be_seen(broken: str) -> None:
    assert replay(KubeflowDouble(tick=0), lambda answer: answer.replace(broken, "other"))

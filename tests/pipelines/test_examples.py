"""The example pipelines: compiled for any cluster, and run here on small real data, to the message at a webhook."""

import json
import re
from collections.abc import Callable, Generator
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format
from kfp.compiler import Compiler
from kfp.pipeline_spec import pipeline_spec_pb2

from driftline.components.mmd import two_sample_test
from driftline.components.projection.pca import PCA, gather
from driftline.components.storage.dataset.reader import EmbeddingsDataset
from driftline.components.storage.objects.store import read_json
from driftline.pipelines.examples import gated_drift, kernel_sums_alone, nightly
from driftline.pipelines.examples.small_steps import tell_chat
from driftline.pipelines.profile import Profile
from tests.components.embedding.backfills import Backfill
from tests.components.embedding.tiny_models import save_model
from tests.support.datasets import write_embeddings, write_texts
from tests.support.http_server import TestServer, serving
from tests.support.ir_lint import documents, problems
from tests.support.kfp_local import LocalRun, run_locally

EXAMPLES: dict[str, Callable[[Profile], Callable[..., Any]]] = {
    "gated-drift": gated_drift.gated_drift,
    "nightly-drift": nightly.nightly,
    "kernel-sums-alone": kernel_sums_alone.kernel_sums_alone,
}
PIPELINES_README = Path(__file__).parents[2] / "pipelines" / "README.md"


# Compiled


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> Profile:
    """The profile of the README, which says something of every key."""
    [example] = re.findall(r"```yaml\n(images:.*?)```", PIPELINES_README.read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path_factory.mktemp("profile") / "cluster.yaml"
    path.write_text(example, encoding="utf-8")
    return Profile.from_file(str(path))


def compiled(name: str, profile: Profile, folder: Path) -> str:
    path = folder / "pipeline.yaml"
    Compiler().compile(EXAMPLES[name](profile), str(path))
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_compiles_and_passes_the_lint(name, tmp_path):
    text = compiled(name, Profile(), tmp_path)
    assert list(problems(text)) == []
    spec, platform = documents(text)
    assert spec["pipelineInfo"]["name"] == name
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec(), ignore_unknown_fields=False)
    json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec(), ignore_unknown_fields=False)
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    assert [key for key, one in inputs.items() if not one.get("description")] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_placed_by_a_profile_that_sets_everything_passes_the_lint(name, tmp_path, everything):
    text = compiled(name, everything, tmp_path)
    labels = {**everything.node_selector, **everything.gpu_node_selector}
    assert list(problems(text, selectors=labels.items())) == []
    spec, platform = documents(text)
    executors = spec["deploymentSpec"]["executors"]
    assert {one["container"]["image"] for one in executors.values()} <= set(everything.images.values())
    settings = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert settings.keys() == executors.keys()  # small steps are placed, too
    assert all(one["podMetadata"]["labels"] == {"team": "search"} for one in settings.values())


def test_a_message_is_never_taken_from_the_cache(tmp_path):
    spec, _ = documents(compiled("nightly-drift", Profile(), tmp_path))
    tasks = [task for one in spec["components"].values() for task in one.get("dag", {}).get("tasks", {}).values()]
    messages = [task for task in tasks if "tell-chat" in task["componentRef"]["name"]]
    assert len(messages) == 2
    assert [task["cachingOptions"] for task in messages] == [{}, {}]


# The small steps


class Webhook:
    """A chat's webhook: it keeps what it is sent, and answers with a status."""

    def __init__(self) -> None:
        self.status = 200
        self.messages: list[tuple[str, str, dict[str, str]]] = []

    def handler(self) -> type[BaseHTTPRequestHandler]:
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                webhook.messages.append((self.path, self.headers["Content-Type"], json.loads(body)))
                self.send_response(webhook.status)
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        return Handler


@pytest.fixture
def webhook() -> Webhook:
    return Webhook()


@pytest.fixture
def url(webhook) -> Generator[str]:
    with serving(TestServer(webhook.handler())) as address:
        yield f"{address}/services/secret-part"


def test_a_message_is_posted_as_json(webhook, url):
    tell_chat.python_func(text='Drift, "so to say": ΔMMD', report_uri="gs://b/report.html", webhook=url)
    text = 'Drift, "so to say": ΔMMD; see gs://b/report.html'
    assert webhook.messages == [("/services/secret-part", "application/json", {"text": text})]


def test_without_a_webhook_a_message_is_logged(caplog):
    tell_chat.python_func(text="Drift")
    assert caplog.messages == ["Drift"]


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (lambda url: url, "the message was not taken (HTTP Error 500: Internal Server Error): Drift"),
        (lambda _: "http://127.0.0.1:9/secret-part", "webhook 127.0.0.1:9: the message was not taken (<urlopen error"),
        (lambda _: "http://ä:9/secret-part", "webhook ä:9: the message was not taken"),
        (lambda _: "http://host:a/secret-part", "the message was not taken"),
        (lambda url: url.replace("http:", "file:"), "webhook: expected a URL such as https://"),
        (lambda _: "hooks.example/secret-part", "webhook: expected a URL"),
        (lambda _: "https://host/secret-part and more", "webhook: expected a URL"),
        (lambda _: "https://user:secret-part@host/", "webhook: expected a URL"),
        (lambda _: "https://[half/secret-part", "the message was not taken"),
        (lambda _: "https://host\n/secret-part", "webhook: expected a URL"),
    ],
)
def test_a_webhook_that_fails_ends_the_step_in_one_line_without_its_secret(broken, words, webhook, url):
    webhook.status = 500
    with pytest.raises(SystemExit) as end:
        tell_chat.python_func(text="Drift", webhook=broken(url))
    line = str(end.value.code)
    assert words in line
    assert "\n" not in line
    assert "secret-part" not in line
    assert "Drift" in line


def test_the_moment_of_a_run_is_settled_once():
    assert nightly.moment_of.python_func("2026-11-30") == "2026-11-30"
    now = datetime.fromisoformat(nightly.moment_of.python_func())
    assert now.utcoffset() == timedelta(0)


# The gates, by themselves


def run_example(code: str, root: Path, **arguments: Any) -> LocalRun:
    """Run what `code` makes by a profile of this machine."""
    return run_locally(
        f"from driftline.pipelines.examples import gated_drift, nightly, kernel_sums_alone\n"
        f"from driftline.pipelines.profile import LOCAL\nmade = {code}(LOCAL)",
        root,
        **arguments,
    )


GATES = [
    ("gated_drift.gate", {"drift": True}, ["no longer look like"]),
    ("gated_drift.gate", {"drift": False}, []),
    ("nightly.gate", {"drift": True, "verdict": "drift found"}, ["do not look like"]),
    ("nightly.gate", {"drift": False, "verdict": "no drift found"}, []),
    ("nightly.gate", {"drift": False, "verdict": "skipped"}, ["nothing to compare"]),
]


@pytest.mark.parametrize(("gate", "verdict", "told"), GATES)
def test_a_gate_tells_what_there_is_to_tell_and_nothing_else(gate, verdict, told, webhook, url, tmp_path):
    run = run_example(gate, tmp_path, **verdict, report_uri="gs://b/r.html", webhook=url)
    assert run.succeeded, run.log[-3000:]
    texts = [message["text"] for _, _, message in webhook.messages]
    assert len(texts) == len(told)
    assert all(words in text and text.endswith("; see gs://b/r.html") for words, text in zip(told, texts, strict=True))
    assert "Could not resolve" not in run.log  # what KFP's local runner says of a condition that it takes for false


def test_a_webhook_that_fails_fails_the_run(webhook, url, tmp_path):
    webhook.status = 500
    run = run_example("gated_drift.gate", tmp_path, drift=True, report_uri="", webhook=url)
    assert not run.succeeded
    assert ": the message was not taken (HTTP Error 500: Internal Server Error)" in run.log
    assert "Traceback" not in run.log.partition("the message was not taken")[0].rpartition("tell-chat")[2]


# Whole runs


@pytest.fixture(scope="module")
def lake(tmp_path_factory) -> SimpleNamespace:
    """A model, and a lake: eight days of texts and their embeddings, a day of the same kind, and one of another."""
    root = tmp_path_factory.mktemp("lake")
    model = save_model(root / "model", dense=40)
    words = ["the", "film", "plot", "query", "document", "sun", "rain", "night", "day", "tree"]
    rng = np.random.default_rng(5)

    def texts(chosen: list[str], count: int) -> list[str]:
        return [" ".join(rng.choice(chosen, 8)) for _ in range(count)]

    for day in range(21, 29):
        folder = root / "texts" / f"date=2026-11-{day}"
        write_texts(folder / "a.jsonl", texts(words[:6], 15), f"{day}-")
        Backfill(root / "work" / str(day)).run([folder], model, root / "embeddings" / folder.name)
    write_texts(root / "texts" / "date=2026-11-29" / "a.jsonl", texts(words[:6], 30))
    write_texts(root / "other" / "a.jsonl", texts(words[4:], 30))
    return SimpleNamespace(
        root=root,
        model=str(model),
        embeddings=str(root / "embeddings"),
        texts=str(root / "texts"),
        day=str(root / "other"),
    )


@pytest.mark.slow
def test_own_texts_that_drifted_are_told_of(lake, webhook, url, tmp_path):
    run = run_example(
        "gated_drift.gated_drift",
        tmp_path / "run",
        text_files=[lake.day],
        model=lake.model,
        embeddings=str(tmp_path / "embeddings"),
        reference=f"{lake.embeddings}/date=2026-11-21..2026-11-28",
        output_folder=str(tmp_path / "out"),
        tasks=1,
        webhook=url,
    )
    assert run.succeeded, run.log[-3000:]
    assert EmbeddingsDataset.open(str(tmp_path / "embeddings")).rows == 30
    result = read_json(str(tmp_path / "out" / "result.json"))
    assert result["drift"] is True
    assert [(result[side]["rows"]) for side in ("reference", "current")] == [120, 30]
    [(_, _, message)] = webhook.messages
    assert message == {"text": f"These texts no longer look like the reference; see {tmp_path}/out/report.html"}
    assert (tmp_path / "out" / "report.html").is_file()


NIGHT = {
    "text_files": "{texts}/date=yesterday",
    "night": "{embeddings}/date=yesterday",
    "week": "{embeddings}/date=-8d..-2d",
}


def run_night(lake: SimpleNamespace, root: Path, as_of: str, url: str) -> tuple[LocalRun, dict[str, Any]]:
    """Run the night before a moment, and return the run and its result."""
    places = {name: place.format(**vars(lake)) for name, place in NIGHT.items()}
    run = run_example(
        "nightly.nightly",
        root / "run",
        **{**places, "text_files": [places["text_files"]]},
        model=lake.model,
        output_folder=f"{root}/reports/{{date}}",
        tasks=1,
        webhook=url,
        window_as_of=as_of,
    )
    assert run.succeeded, run.log[-3000:]
    [result] = (root / "reports").glob("2026-*/result.json")
    return run, read_json(str(result))


@pytest.mark.slow
def test_a_night_like_the_week_before_is_compared_and_nobody_is_told(lake, webhook, url, tmp_path):
    run, result = run_night(lake, tmp_path, "2026-11-30T01:00:00Z", url)
    assert (result["status"], result["drift"]) == ("compared", False)
    assert result["current"]["uri"].endswith("/embeddings/date=2026-11-29")
    assert result["reference"]["uri"].endswith("/embeddings/date=2026-11-22..2026-11-28")
    assert [result[side]["rows"] for side in ("reference", "current")] == [105, 30]
    assert (webhook.messages, run.ran("tell-chat")) == ([], 0)


@pytest.mark.slow
def test_a_quiet_night_is_skipped_and_told_of(lake, webhook, url, tmp_path):
    run, result = run_night(lake, tmp_path, "2026-12-03T01:00:00Z", url)
    assert result["status"] == "skipped"
    assert not (lake.root / "embeddings" / "date=2026-12-02").exists()
    assert run.ran("report") == 1
    [(_, _, message)] = webhook.messages
    assert message["text"] == (
        f"Last night there was nothing to compare; see {tmp_path}/reports/2026-12-03/report.html"
    )


@pytest.mark.slow
def test_kernel_sums_alone_decide_as_the_library_does(tmp_path):
    rng = np.random.default_rng(3)
    x, y = (rng.normal(mean, 1.0, size=(120, 40)).astype(np.float32) for mean in (0.0, 0.3))
    run = run_example(
        "kernel_sums_alone.kernel_sums_alone",
        tmp_path / "run",
        reference=write_embeddings(str(tmp_path / "x"), x),
        current=write_embeddings(str(tmp_path / "y"), y),
        output_folder=str(tmp_path / "out"),
        kernel_tasks=2,
    )
    assert run.succeeded, run.log[-3000:]
    pooled = np.concatenate([x, y])
    z = PCA.fit(gather([pooled]), 32).project(pooled).astype(np.float32)
    expected = two_sample_test(z[:120], z[120:], kernel="rbf", permutations=500)
    assert run.outputs == {
        "drift": True,
        "p_value": expected.p_value,
        "mmd2": pytest.approx(expected.mmd2, rel=1e-4),
        "verdict": "drift found",
    }
    assert expected.rejected

"""What a monitor is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from driftline.components.errors import UsageError
from driftline.components.mmd.online_reference import OnlineSettings

StartAt = Literal["earliest", "latest"]
START_AT: Final = get_args(StartAt)


@dataclass(frozen=True, slots=True)
class ReferenceSettings:
    """What the stream is compared with.

    Attributes:
        dataset: the embeddings dataset that the stream used to look like, a folder or ``gs://``. One whose content
            changes is another reference when the monitor starts the next time, so name days that are over.
        rows: at most this many of its rows take part, chosen by the seed; 0 for all.
        components: principal components to compare; 0 for whole vectors; None for 32, or for all that the projection
            given has.
        projection: a projection that the drift pipeline fitted, JSON; empty to fit one, on a quarter of the rows, which
            the detector's reference is then without. Give one that was fitted on other rows than the reference's: to a
            projection fitted on the reference, new records look different.
        online: the detector's settings; its seed chooses the rows too.

    Raises:
        UsageError: a setting out of range, or two that contradict one another.
    """

    dataset: str
    rows: int = 20_000
    components: int | None = None
    projection: str = ""
    online: OnlineSettings = field(default_factory=OnlineSettings)

    def __post_init__(self) -> None:
        if self.rows < 0:
            raise UsageError(f"reference-rows: expected a number of rows, or 0 for all, got {self.rows}")
        if self.components is not None and self.components < 0:
            raise UsageError(f"components: expected 1 or more, or 0 for whole vectors, got {self.components}")


@dataclass(frozen=True, slots=True)
class RunSettings:
    """The run of a Kubeflow pipeline that an alarm starts.

    Attributes:
        url: the Kubeflow Pipelines API, such as ``http://ml-pipeline.kubeflow:8888``.
        pipeline: name of the pipeline there.
        parameters: the run's parameters. In strings ``{alert}`` stands for the alert's id, so that each run can have a
            folder of its own, and ``{first_date}`` and ``{last_date}`` for the days, in UTC, of the earliest and of the
            latest record in the window, as archives' folders are named.
        namespace: of the pipeline and the run, where Kubeflow serves several users; empty where it does not.
        experiment: name of the experiment that the run belongs to; empty for the default one.
        service_account: Kubernetes service account that the run's pods have; empty for the default one.
        token_file: file that holds a bearer token, read anew each time since such tokens are short-lived; empty for
            none.
        cool_down_s: no second run is started within this time of the first, so that one drift starts one run.

    Raises:
        UsageError: a setting out of range.
    """

    url: str
    pipeline: str
    parameters: tuple[tuple[str, object], ...]
    namespace: str = ""
    experiment: str = ""
    service_account: str = ""
    token_file: str = ""
    cool_down_s: float = 3600.0

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise UsageError(f"kfp-url: expected http:// or https:// and a host, got {self.url!r}")
        if not self.pipeline:
            raise UsageError("on-drift: expected submit: and a pipeline's name, got none")
        if not self.cool_down_s >= 0:
            raise UsageError(f"cool-down-s: expected a number of seconds from 0, got {self.cool_down_s}")


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """What a monitor watches, and whom it tells.

    Attributes:
        topic: the topic of embeddings.
        reference: what it is compared with.
        state: folder or ``gs://`` prefix of this monitor alone, where what it has seen outlives it.
        alerts_topic: topic that alerts go to; empty to log them only.
        start_at: where a monitor without a state begins: with the oldest record that the topic holds, or the next.
        texts: texts that an alert names of each kind: those that moved most, and those most like the reference.
        save_interval_s: how often the state is written while records come.
        run: the run that an alarm starts; None for none.

    Raises:
        UsageError: a setting out of range.
    """

    topic: str
    reference: ReferenceSettings
    state: str
    alerts_topic: str = ""
    start_at: StartAt = "earliest"
    texts: int = 5
    save_interval_s: float = 5.0
    run: RunSettings | None = None

    def __post_init__(self) -> None:
        if self.start_at not in START_AT:
            raise UsageError(f"start-at: expected one of {', '.join(START_AT)}, got {self.start_at!r}")
        if self.texts < 0:
            raise UsageError(f"texts: expected a number of texts from 0, got {self.texts}")
        if not self.save_interval_s >= 0:
            raise UsageError(f"save-interval-s: expected a number of seconds from 0, got {self.save_interval_s}")
        if self.alerts_topic == self.topic:
            raise UsageError(f"alerts-topic: is {self.topic!r}, the topic that is watched; choose another one")

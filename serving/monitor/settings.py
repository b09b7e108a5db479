"""What a monitor is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from driftline.components.errors import UsageError
from driftline.components.mmd.online import OnlineSettings
from driftline.components.settings import Setting, check_settings

StartAt = Literal["earliest", "latest"]


@dataclass(frozen=True, slots=True)
class ReferenceSettings:
    """What the stream is compared with.

    A dataset whose content changes is another reference when the monitor starts the next time, so name days that are
    over. To a projection fitted on the reference, new records look different: one is fitted on a quarter of the rows,
    which the detector's reference is then without, or given, fitted on other rows by the drift pipeline.

    Attributes:
        online: the detector's settings; its seed chooses the rows too.

    Raises:
        UsageError: a setting out of range.
    """

    dataset: Annotated[
        str,
        Setting(
            "Embeddings dataset that the stream used to look like; a folder or gs://",
            option="reference",
            metavar="DATASET",
        ),
    ]
    rows: Annotated[
        int,
        Setting(
            "At most N rows of the reference, chosen by the seed; 0 for all",
            least=0,
            option="reference-rows",
            metavar="N",
        ),
    ] = 20_000
    components: Annotated[
        int | None,
        Setting("Principal components to compare; 0 for whole vectors", "32, or all of --projection", least=0),
    ] = None
    projection: Annotated[
        str,
        Setting(
            "Projection that a drift run fitted, on other rows than the reference's",
            "fit one on a quarter",
            metavar="FILE",
        ),
    ] = ""
    online: OnlineSettings = field(default_factory=OnlineSettings)

    def __post_init__(self) -> None:
        check_settings(self, by_option=True)


@dataclass(frozen=True, slots=True)
class RunSettings:
    """The run of a Kubeflow pipeline that an alarm starts.

    Attributes:
        url: the Kubeflow Pipelines API, such as ``http://ml-pipeline.kubeflow:8888``.
        pipeline: name of the pipeline there.
        parameters: the run's parameters. In strings ``{alert}`` stands for the alert's id, so that each run can have a
            folder of its own, and ``{first_date}`` and ``{last_date}`` for the days, in UTC, of the earliest and of the
            latest record in the window, as archives' folders are named.

    Raises:
        UsageError: a setting out of range.
    """

    url: str
    pipeline: str
    parameters: tuple[tuple[str, object], ...]
    namespace: Annotated[
        str, Setting("Namespace of the pipeline, where Kubeflow serves several users", "none", option="kfp-namespace")
    ] = ""
    experiment: Annotated[str, Setting("Experiment of the run", "Kubeflow's default one", option="kfp-experiment")] = ""
    service_account: Annotated[
        str, Setting("Service account of the run's pods", "Kubeflow's default one", option="kfp-service-account")
    ] = ""
    token_file: Annotated[
        str,
        Setting("File that holds a bearer token, read anew each time", "none", option="kfp-token-file", metavar="FILE"),
    ] = ""
    cool_down_s: Annotated[
        float, Setting("Seconds after a run within which no second one is started", least=0, metavar="S")
    ] = 3600.0

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise UsageError(f"kfp-url: expected http:// or https:// and a host, got {self.url!r}")
        if not self.pipeline:
            raise UsageError("on-drift: expected submit: and a pipeline's name, got none")
        check_settings(self, by_option=True)


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """What a monitor watches, and whom it tells.

    Attributes:
        reference: what the topic is compared with.
        run: the run that an alarm starts; None for none.

    Raises:
        UsageError: a setting out of range.
    """

    topic: Annotated[str, Setting("Topic of embeddings, as the stream worker writes it", metavar="TOPIC")]
    reference: ReferenceSettings
    state: Annotated[
        str,
        Setting("Folder or gs:// prefix of this monitor alone, where what it has seen outlives it", metavar="DIR"),
    ]
    alerts_topic: Annotated[str, Setting("Where alerts go", "the log only", metavar="TOPIC")] = ""
    start_at: Annotated[
        StartAt,
        Setting(
            "Where a new monitor begins: with the oldest record that the topic holds (earliest), or the next (latest)"
        ),
    ] = "earliest"
    texts: Annotated[
        int,
        Setting("Texts of each kind in an alert: that moved most, and most like the reference; 0 for none", least=0),
    ] = 5
    save_interval_s: Annotated[
        float, Setting("Seconds between two writes of the state while records come", least=0, metavar="S")
    ] = 5.0
    run: RunSettings | None = None

    def __post_init__(self) -> None:
        check_settings(self, by_option=True)
        if self.alerts_topic == self.topic:
            raise UsageError(f"alerts-topic: is {self.topic!r}, the topic that is watched; choose another one")

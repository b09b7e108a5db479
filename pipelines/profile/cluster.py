"""The profile itself: what it says of all tasks and of one step's, and how a task gets it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal, Self

from kfp import kubernetes
from kfp.dsl.structures import RetryPolicy
from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from driftline.components.images import references
from driftline.pipelines.profile.reading import checked, read_model
from driftline.pipelines.profile.values import (
    ClaimName,
    ClaimNameOrNone,
    Count,
    Cpu,
    Duration,
    FileOrNone,
    ImageReference,
    KeyName,
    LabelValue,
    Memory,
    MountPath,
    Price,
    ResourceName,
    Retries,
    SecretKey,
    SecretName,
    VariableName,
    Verbatim,
    WholeNumber,
    amount,
    expected,
)

GPU_RESOURCE: Final = "nvidia.com/gpu"
PARALLELISM: Final = 16  # pods of one fan-out at a time; more tasks wait

MODEL_CACHE: Final = "/var/cache/driftline/models"
SHARED_MEMORY: Final = "/dev/shm"
SHARED_MEMORY_VOLUME: Final = "shared-memory"

TASK_TIMEOUT: Final = timedelta(hours=6)  # a task still running then hangs: shares are cut to take minutes
FIRST_PAUSE: Final = timedelta(seconds=30)  # before the first retry; each further pause is twice as long
PAUSE_FACTOR: Final = 2.0
# An attempt's wait for a node and its image counts within Argo's retry window, but not towards the attempt's time-out.
START: Final = timedelta(minutes=10)

ImageName = Literal["embed", "kernels"]
FanOut = Literal["embed", "kernels"]
StepName = Literal[
    "sample",
    "fit",
    "project",
    "plan",
    "kernel-sums",
    "mmd-test",
    "report",
    "notify",
    "fail-on-drift",
    "plan-backfill",
    "embed",
    "finish-backfill",
]


@dataclass(frozen=True, slots=True)
class Step:
    """What a step of Driftline's needs on any cluster.

    Attributes:
        image: name of its image.
        cpu: cores that it asks for.
        memory: memory that it asks for.
        gpu: its fan-out, whose tasks may ask for a GPU each; empty where it never wants one.
        models: whether it reads a model.
        retried: whether it is tried again when it fails; not where its failure is what it is for.
    """

    image: ImageName
    cpu: str
    memory: str
    gpu: FanOut | Literal[""] = ""
    models: bool = False
    retried: bool = True


STEPS: Final[Mapping[str, Step]] = {
    "sample": Step("kernels", "1", "1Gi"),
    "fit": Step("kernels", "2", "4Gi"),
    "project": Step("kernels", "2", "4Gi"),
    "plan": Step("kernels", "2", "2Gi"),
    "kernel-sums": Step("kernels", "2", "4Gi", gpu="kernels"),
    "mmd-test": Step("kernels", "1", "4Gi"),
    "report": Step("kernels", "1", "2Gi"),
    "notify": Step("kernels", "100m", "256Mi"),
    "fail-on-drift": Step("kernels", "100m", "256Mi", retried=False),
    "plan-backfill": Step("embed", "2", "4Gi", models=True),
    "embed": Step("embed", "4", "8Gi", gpu="embed", models=True),
    "finish-backfill": Step("embed", "2", "4Gi", models=True),
}
"""Driftline's steps by the names of their components."""


def _wrong(key: str, what: str) -> PydanticCustomError:
    """Return the error of settings that do not go together, told at one of their keys."""
    return PydanticCustomError("expected", "expected " + what, {"key": key})  # pyright: ignore[reportArgumentType]


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Resources(_Checked):
    """Requests or limits of a task's processors and memory."""

    cpu: Cpu | None = None
    memory: Memory | None = None


class SecretValue(_Checked):
    """Where a variable's value is kept: the name of a Kubernetes Secret and a key of its data, never the value."""

    name: SecretName
    key: SecretKey


class Toleration(_Checked):
    """A taint of nodes that tasks may run on all the same, in Kubernetes' words."""

    key: KeyName | None = None
    operator: Literal["Equal", "Exists"] = "Equal"
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    seconds: WholeNumber | None = None

    @model_validator(mode="after")
    def _means_something(self) -> Self:
        if self.operator == "Equal" and self.key is None:
            raise expected("a key, or the operator Exists for every taint")
        if self.operator == "Exists" and self.value is not None:
            raise expected("no value with the operator Exists")
        if self.seconds is not None and self.effect != "NoExecute":
            raise expected("seconds with the effect NoExecute only")
        return self


class Settings(_Checked):
    """What may be said of all tasks and, over that, of one step's.

    Attributes:
        requests: processors and memory to reserve.
        limits: processors and memory not to exceed.
        environment: variables and their values.
        secrets: variables whose values are in Kubernetes Secrets.
        volumes: persistent volume claims and the folders where tasks find them.
        node_selector: labels of the nodes to run on.
        tolerations: taints of nodes to run on all the same.
        labels: of the pods.
        annotations: of the pods.
    """

    requests: Resources = Resources()
    limits: Resources = Resources()
    environment: Mapping[VariableName, Verbatim] = {}
    secrets: Mapping[VariableName, SecretValue] = {}
    volumes: Mapping[ClaimName, MountPath] = {}
    node_selector: Mapping[KeyName, LabelValue] = {}
    tolerations: tuple[Toleration, ...] = ()
    labels: Mapping[KeyName, LabelValue] = {}
    annotations: Mapping[KeyName, Verbatim] = {}

    @model_validator(mode="after")
    def _each_variable_once(self) -> Self:
        for variable in self.secrets:
            if variable in self.environment:
                raise _wrong(f"secrets.{variable}", "a variable that environment does not set, too")
        return self


class StepSettings(Settings):
    """What is said of one step's tasks alone: each of these counts before what is said of all.

    Attributes:
        timeout: an attempt still running then is stopped.
        retries: how often a failed task is tried again.
        gpus: how many GPUs each of its tasks asks for, where its fan-out has any.
        shared_memory: size of /dev/shm.
    """

    timeout: Duration | None = None
    retries: Retries | None = None
    gpus: Count | None = None
    shared_memory: Memory | None = None


class Profile(Settings):
    """Where and how the tasks of a compiled pipeline run. A profile file's keys are these names.

    Attributes:
        images: image references by name, ``embed`` and ``kernels``; one that is left out is the environment's or the
            default.
        image_pull_policy: when nodes fetch an image; None for Kubernetes' own rule.
        image_pull_secrets: Kubernetes Secrets with which nodes fetch images.
        timeout: an attempt still running then is stopped.
        retries: how often a failed task is tried again; every task is idempotent. fail-on-drift never is: it fails on
            purpose.
        gpu: the fan-outs whose tasks ask for GPUs: ``embed``, ``kernels`` or both.
        gpu_resource: what a GPU is called on the nodes.
        gpus: how many GPUs each of these tasks asks for.
        gpu_node_selector: labels of the nodes for these tasks alone.
        shared_memory: size of /dev/shm for these tasks alone; for other steps it is given in ``steps``.
        parallelism: how many tasks of a fan-out run at a time.
        model_claim: persistent volume claim in which models from gs:// are kept between tasks and runs, so that a node
            or a zone fetches each once; empty for none.
        encoder_tunings: what `driftline bench encode` measured on such machines, a gs:// or local file, by which the
            backfill's tasks choose their batches; empty for none.
        hourly_price: of one such task's machine, in any currency, to tell what a million texts cost; 0 to leave it out.
        steps: what differs for single steps, by the names of their components.
    """

    images: Mapping[ImageName, ImageReference] = {}
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    image_pull_secrets: tuple[SecretName, ...] = ()
    timeout: Duration = TASK_TIMEOUT
    retries: Retries = 3
    gpu: frozenset[FanOut] = frozenset({"embed"})
    gpu_resource: ResourceName = GPU_RESOURCE
    gpus: Count = 1
    gpu_node_selector: Mapping[KeyName, LabelValue] = {}
    shared_memory: Memory = "2Gi"  # PyTorch's workers and NCCL share beyond a container's default of 64 MiB
    parallelism: Count = PARALLELISM
    model_claim: ClaimNameOrNone = ""
    encoder_tunings: FileOrNone = ""
    hourly_price: Price = 0.0
    steps: Mapping[StepName, StepSettings] = {}

    @classmethod
    def from_file(cls, uri: str) -> Self:
        """Read a profile file: YAML, whose keys are the names above.

        Raises:
            UsageError: something in it is not as expected; the one line names the key.
            StorageError: it could not be read.
        """
        return read_model(cls, uri)

    def changed(self, settings: Mapping[str, Any], source: str) -> Self:
        """Return this profile with other settings.

        Args:
            settings: their values by name.
            source: where they are from, to begin the message with.

        Raises:
            UsageError: they are not as expected, or do not go together with the rest.
        """
        kept = {name: getattr(self, name) for name in self.model_fields_set}
        return checked(type(self), {**kept, **settings}, source)

    @model_validator(mode="after")
    def _fits_every_step(self) -> Self:
        for name, step in STEPS.items():
            own = self._own(name)
            if own.gpus is not None and step.gpu not in self.gpu:
                wanted = f"{step.gpu} in gpu" if step.gpu else "no GPUs for this step, which never uses one"
                raise _wrong(f"steps.{name}.gpus", wanted)
            if own.retries and not step.retried:
                raise _wrong(f"steps.{name}.retries", "no retries of a step that fails on purpose")
            for what in ("cpu", "memory"):
                self._check_limit(name, what)
            self._check_volumes(name)
        return self

    def _check_limit(self, name: str, what: str) -> None:
        request = getattr(_over(_defaults(STEPS[name]), self.requests, self._own(name).requests), what)
        own, of_all = getattr(self._own(name).limits, what), getattr(self.limits, what)
        limit = own or of_all
        if limit and (amount(limit) or 0) < (amount(request) or 0):
            key = f"steps.{name}.limits.{what}" if own else f"limits.{what}"
            raise _wrong(key, f"at least what {name} asks for, {request}, got {limit}")

    def _check_volumes(self, name: str) -> None:
        """Refuse what the pod would be refused for: two volumes of one name, or two in one place."""
        own = self._own(name).volumes
        models = self.model_claim if STEPS[name].models else ""
        taken = {MODEL_CACHE: "model_claim"} if models else {}
        for claim, path in {**self.volumes, **own}.items():
            key = f"steps.{name}.volumes.{claim}" if claim in own else f"volumes.{claim}"
            if claim in (SHARED_MEMORY_VOLUME, models):
                other = "the volume of /dev/shm" if claim == SHARED_MEMORY_VOLUME else "model_claim"
                raise _wrong(key, f"another claim than {other}: a task can mount each once")
            if path in taken:
                raise _wrong(key, f"another folder than that of {taken[path]}, got {path}")
            taken[path] = claim

    @property
    def model_cache(self) -> str:
        """The folder where the tasks find the claim mounted; empty where there is none."""
        return MODEL_CACHE if self.model_claim else ""

    def image(self, name: str) -> str:
        """Return an image's reference: this profile's, the environment's, or else the default.

        Raises:
            UsageError: the environment variable DRIFTLINE_IMAGES is not a list of images.
        """
        named: Mapping[Any, str] = self.images
        return named.get(name) or references()[name]

    def place(self, task: Any) -> Any:
        """Set up a task: a step of Driftline's by its component's name, with all that this profile says of it.

        Caching is off for Driftline's steps: a cache key holds the datasets' names, not their content. What is already
        done is found by the steps themselves.

        A task of any other component keeps its image and its caching, and the retries, time-out, requests, limits and
        variables that it has; it gets what is said of all tasks.

        Args:
            task: the KFP task.

        Returns:
            The task.

        Raises:
            TypeError: it is a whole pipeline, or an import; tasks are placed within a pipeline.
        """
        if task.container_spec is None:
            raise TypeError(f"place: expected a task of a component, got {task.name!r}; place the tasks within it")
        name = step_name(task)
        step = STEPS.get(name)
        own = self._own(name)
        gpus = self._gpus(name)
        if step is not None:
            task.set_container_image(self.image(step.image))
            task.set_caching_options(False)
        self._bound(task, step, own)
        self._supply(task, own)
        if step is not None and step.models and self.model_claim:
            kubernetes.mount_pvc(task, self.model_claim, MODEL_CACHE)
        if gpus:
            task.set_accelerator_type(self.gpu_resource).set_accelerator_limit(gpus)
        self._schedule(task, own, with_gpu=gpus > 0)
        shared = own.shared_memory or (self.shared_memory if gpus else None)
        if shared:
            kubernetes.empty_dir_mount(task, SHARED_MEMORY_VOLUME, SHARED_MEMORY, medium="Memory", size_limit=shared)
        return task

    def _gpus(self, name: str) -> int:
        """Return how many GPUs a step's tasks ask for each."""
        step = STEPS.get(name)
        if step is None or step.gpu not in self.gpu:
            return 0
        return self._own(name).gpus or self.gpus

    def _own(self, name: str) -> StepSettings:
        steps: Mapping[Any, StepSettings] = self.steps
        return steps.get(name, StepSettings())

    def _bound(self, task: Any, step: Step | None, own: StepSettings) -> None:
        """Set requests, limits, time-out and retries."""
        requests = _over(_defaults(step), self.requests, own.requests)
        limits = _over(self.limits, own.limits)
        had = None if step is not None else task.container_spec.resources
        for name, value in {
            "cpu_request": requests.cpu,
            "memory_request": requests.memory,
            "cpu_limit": limits.cpu,
            "memory_limit": limits.memory,
        }.items():
            if value is not None and getattr(had, name, None) is None:
                getattr(task, f"set_{name}")(value)
        timeout = own.timeout or self.timeout
        if step is not None or "activeDeadlineSeconds" not in task.platform_config.get("kubernetes", {}):
            kubernetes.set_timeout(task, math.ceil(timeout.total_seconds()))
        retries = self.retries if own.retries is None else own.retries
        if step is not None and not step.retried:
            retries = 0
        if retries and (step is not None or task._task_spec.retry_policy is None):
            _set_retries(task, retries, timeout)

    def _supply(self, task: Any, own: StepSettings) -> None:
        """Set how images are fetched, variables, volumes, labels and annotations."""
        if self.image_pull_policy:
            kubernetes.set_image_pull_policy(task, self.image_pull_policy)
        if self.image_pull_secrets:
            kubernetes.set_image_pull_secrets(task, list(self.image_pull_secrets))
        had = set(task.container_spec.env or ())
        for variable, value in {**_without(self.environment, {*own.secrets, *had}), **own.environment}.items():
            task.set_env_variable(variable, value)
        for variable, secret in {**_without(self.secrets, {*own.environment, *had}), **own.secrets}.items():
            kubernetes.use_secret_as_env(task, secret.name, {secret.key: variable})
        for claim, path in {**self.volumes, **own.volumes}.items():
            kubernetes.mount_pvc(task, claim, path)
        for key, value in {**self.labels, **own.labels}.items():
            kubernetes.add_pod_label(task, key, value)
        for key, value in {**self.annotations, **own.annotations}.items():
            kubernetes.add_pod_annotation(task, key, value)

    def _schedule(self, task: Any, own: StepSettings, *, with_gpu: bool) -> None:
        """Set which nodes the task may and must run on."""
        labels = {**self.node_selector, **(self.gpu_node_selector if with_gpu else {}), **own.node_selector}
        for key, value in labels.items():
            kubernetes.add_node_selector(task, key, value)
        tolerations = list(dict.fromkeys([*self.tolerations, *own.tolerations]))
        if with_gpu:
            taint = self.gpu_resource.partition("/")[0] + "/gpu"  # a part of a GPU is on a node tainted as a GPU's
            tolerations.append(Toleration(key=taint, operator="Exists", effect="NoSchedule"))
        for one in dict.fromkeys(tolerations):
            kubernetes.add_toleration(
                task,
                key=one.key,
                operator=one.operator,
                value=one.value,
                effect=one.effect,
                toleration_seconds=one.seconds,
            )


def step_name(task: Any) -> str:
    """Return which of Driftline's steps a task is, and an empty text where it is of another's component.

    A component of somebody else may well be called `report`; Driftline's import their steps from it.
    """
    name = task.component_spec.name
    words = [*(task.container_spec.command or ()), *(task.container_spec.args or ())]
    ours = any("driftline.components." in word for word in words if isinstance(word, str))
    return name if ours and name in STEPS else ""


def retry_window(retries: int, timeout: timedelta) -> timedelta:
    """Return how long after its first attempt's start a task may still be tried, in whole hours.

    Argo counts everything against this window, waiting for nodes and images too, and ends the attempt that runs when
    it is over; so it covers every attempt to its time-out, and the pauses between.
    """
    pauses = sum((FIRST_PAUSE * PAUSE_FACTOR**retry for retry in range(retries)), timedelta())
    return timedelta(hours=math.ceil(((retries + 1) * (timeout + START) + pauses) / timedelta(hours=1)))


class _Retries(RetryPolicy):
    """Retries within a window as long as it says: KFP's SDK before 2.17 cuts every window to an hour."""

    def to_proto(self) -> Any:
        """Return the policy as it is compiled."""
        policy = super().to_proto()
        policy.backoff_max_duration.FromJsonString(self.backoff_max_duration)
        return policy


def _set_retries(task: Any, retries: int, timeout: timedelta) -> None:
    window = f"{int(retry_window(retries, timeout).total_seconds())}s"
    pause = f"{int(FIRST_PAUSE.total_seconds())}s"
    # What task.set_retry sets, but for the kind.
    task._task_spec.retry_policy = _Retries(retries, pause, PAUSE_FACTOR, window)


def _defaults(step: Step | None) -> Resources:
    return Resources() if step is None else Resources(cpu=step.cpu, memory=step.memory)


def _over(*layers: Resources) -> Resources:
    """Return resources of which each is the last layer's that names it."""
    merged = Resources()
    for layer in layers:
        merged = merged.model_copy(update=layer.model_dump(exclude_none=True))
    return merged


def _without(variables: Mapping[str, Any], others: Iterable[str]) -> dict[str, Any]:
    return {name: value for name, value in variables.items() if name not in set(others)}


LOCAL: Final = Profile(gpu=frozenset(), retries=0)
"""This machine: an error is shown at once instead of after three retries."""

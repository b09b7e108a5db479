"""How tasks are placed and retried: what differs between a cluster and this machine, and between clusters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kfp import kubernetes

from driftline.components.images import BY_NAME

GPU_RESOURCE: Final = "nvidia.com/gpu"
GPU_NODES: Final = {"nvidia.com/gpu.present": "true"}  # the label that NVIDIA's GPU feature discovery sets
MAX_PARALLELISM: Final = 16  # pods of one fan-out at a time; more tasks wait

MODEL_CACHE: Final = "/var/cache/driftline/models"

HOUR_S: Final = 3600
TASK_TIMEOUT_S: Final = 6 * HOUR_S  # a task still running then hangs: shares are cut to take minutes


@dataclass(frozen=True, slots=True)
class Profile:
    """Where the tasks of a compiled pipeline run.

    Attributes:
        images: image references by name, ``embed`` and ``kernels``.
        gpu: the fan-outs whose tasks ask for a GPU each: ``embed``, ``kernels`` or both.
        retries: how often a failed task is tried again; every task is idempotent.
        model_claim: persistent volume claim in which models from gs:// are kept between tasks and runs, so that a node
            or a zone fetches each once; empty for none.
    """

    images: Mapping[str, str] = field(default_factory=lambda: dict(BY_NAME))
    gpu: frozenset[str] = frozenset({"embed"})
    retries: int = 3
    model_claim: str = ""

    @property
    def model_cache(self) -> str:
        """The folder where the tasks find the claim mounted; empty where there is none."""
        return MODEL_CACHE if self.model_claim else ""

    def place(self, task: Any, image: str, *, cpu: str, memory: str, gpu: str = "", models: bool = False) -> Any:
        """Set a task's image, requests, retries, the models' volume and, where its fan-out wants one, GPU.

        Caching is off: a cache key holds the datasets' names, not their content. What is already done is found by
        the steps themselves.

        Args:
            task: the KFP task.
            image: name of its image.
            cpu: its request.
            memory: its request.
            gpu: name of its fan-out; empty where it never wants a GPU.
            models: whether it reads a model.

        Returns:
            The task.
        """
        task.set_container_image(self.images[image])
        task.set_caching_options(False)
        task.set_cpu_request(cpu).set_memory_request(memory)
        if self.retries:
            task.set_retry(self.retries, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration="600s")
        kubernetes.set_timeout(task, TASK_TIMEOUT_S)
        if models and self.model_claim:
            kubernetes.mount_pvc(task, self.model_claim, MODEL_CACHE)
        if gpu in self.gpu:
            task.set_accelerator_type(GPU_RESOURCE).set_accelerator_limit(1)
            for label, value in GPU_NODES.items():
                kubernetes.add_node_selector(task, label, value)
            kubernetes.add_toleration(task, key=GPU_RESOURCE, operator="Exists", effect="NoSchedule")
            # PyTorch's workers and NCCL share memory beyond a container's default of 64 MiB.
            kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", medium="Memory", size_limit="2Gi")
        return task


LOCAL: Final = Profile(gpu=frozenset(), retries=0)
"""This machine: an error is shown at once instead of after three retries."""

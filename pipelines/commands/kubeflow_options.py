"""The options by which a command reaches Kubeflow Pipelines, and what they mean together."""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from driftline.components.errors import UsageError

if TYPE_CHECKING:
    from driftline.components.kubeflow.client import Health, Kubeflow

EXPERIMENT: Final = "driftline"
IN_CLUSTER: Final = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
_IN_A_POD: Final = "KUBERNETES_SERVICE_HOST"
_POD_NAMESPACE: Final = "POD_NAMESPACE"
_POD_NAMESPACE_FILE: Final = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class Reach:
    """What was given of how to reach Kubeflow."""

    host: str
    namespace: str
    token_file: str
    cookies_file: str
    iap_client_id: str

    def open(self, *, dry_run: bool = False) -> tuple[Kubeflow, Health]:
        """Find the API, log in and settle the namespace.

        Args:
            dry_run: whether to print what would change anything, instead of sending it.

        Raises:
            UsageError: something is missing, or does not go together.
            DriftlineError: there is no answer.
        """
        from driftline.components.kubeflow.client import Kubeflow, connect
        from driftline.components.kubeflow.connection import DryRun
        from driftline.components.kubeflow.logins import choose_login

        # A GET that is tried again is no news; one that fails in the end becomes an error.
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        host = self.host or (IN_CLUSTER if os.environ.get(_IN_A_POD) else "")
        if not host:
            raise UsageError(
                "host: expected --host or KF_PIPELINES_ENDPOINT, the address of Kubeflow's gateway or of ml-pipeline; "
                "from inside of a cluster it is usually " + IN_CLUSTER
            )
        login = choose_login(
            os.environ,
            token_file=self.token_file,
            cookies_file=self.cookies_file,
            iap_client_id=self.iap_client_id,
        )
        connection, health = connect(host, login)
        sender = DryRun(connection, click.echo) if dry_run else connection
        return Kubeflow(sender, self._namespace(health, host)), health

    def _namespace(self, health: Health, host: str) -> str:
        if not health.multi_user:
            if self.namespace:
                raise UsageError(
                    f"namespace {self.namespace}: the Kubeflow at {host} serves one user and has none; leave it out"
                )
            return ""
        own = Path(_POD_NAMESPACE_FILE)
        pods = os.environ.get(_POD_NAMESPACE) or (own.read_text(encoding="utf-8").strip() if own.is_file() else "")
        namespace = self.namespace or pods
        if not namespace:
            raise UsageError(f"namespace: the Kubeflow at {host} serves several users; give yours with --namespace")
        return namespace


def kubeflow_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command, which is given them as ``reach``."""

    @click.option(
        "--host",
        default="",
        envvar="KF_PIPELINES_ENDPOINT",
        metavar="URL",
        help="Kubeflow's gateway, its UI, or ml-pipeline itself; KF_PIPELINES_ENDPOINT otherwise.",
    )
    @click.option(
        "--namespace",
        default="",
        envvar="DRIFTLINE_KFP_NAMESPACE",
        metavar="NS",
        help="Yours, where Kubeflow serves several users.  [default: in a pod, the pod's]",
    )
    @click.option(
        "--token-file",
        default="",
        envvar="DRIFTLINE_KFP_TOKEN_FILE",
        metavar="FILE",
        help="File that holds a bearer token; or the variable DRIFTLINE_KFP_TOKEN holds it. In a pod, its own.",
    )
    @click.option(
        "--cookies-file",
        default="",
        envvar="DRIFTLINE_KFP_COOKIES_FILE",
        metavar="FILE",
        help="File that holds a browser's cookies after a login; or the variable DRIFTLINE_KFP_COOKIES holds them.",
    )
    @click.option(
        "--iap-client-id",
        default="",
        envvar="DRIFTLINE_KFP_IAP_CLIENT_ID",
        metavar="ID",
        help="OAuth client of Google's Identity-Aware Proxy; the token is that of the default credentials.",
    )
    @functools.wraps(command)
    def reaching(
        *, host: str, namespace: str, token_file: str, cookies_file: str, iap_client_id: str, **others: Any
    ) -> Any:
        return command(reach=Reach(host, namespace, token_file, cookies_file, iap_client_id), **others)

    return reaching


def parameter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options by which a run's parameters are given."""
    for add in (
        click.option(
            "--params",
            "params_file",
            default="",
            metavar="FILE",
            help="YAML or JSON file of parameters; -p wins over it.",
        ),
        click.option(
            "-p",
            "--param",
            "params",
            multiple=True,
            metavar="NAME=VALUE",
            help="Parameter of the run, converted to its declared type; lists and objects as JSON. Repeatable.",
        ),
        click.option(
            "--version",
            "version_name",
            default="",
            metavar="NAME",
            help="Version of a pipeline named.  [default: the latest]",
        ),
    ):
        command = add(command)
    return command


experiment_option: Final = click.option(
    "--experiment", default=EXPERIMENT, show_default=True, metavar="NAME", help="Made where it is missing."
)
service_account_option: Final = click.option(
    "--service-account", default="", metavar="NAME", help="Kubernetes service account of the run's pods."
)
dry_run_option: Final = click.option(
    "--dry-run", is_flag=True, help="Print what would be sent, and send nothing that changes anything."
)


def duration_s(context: click.Context, parameter: click.Parameter, value: str) -> float:
    """Return the seconds of a duration as typed: 90, 90s, 30m, 6h or 2d."""
    found = _DURATION.fullmatch(value)
    if found is None:
        raise click.BadParameter(f"expected a duration such as 90s, 30m, 6h or 2d, got {value!r}")
    return float(found[1]) * _SECONDS[found[2]]


timeout_option: Final = click.option(
    "--timeout",
    "timeout_s",
    default="0",
    callback=duration_s,
    metavar="TIME",
    help="Wait at most so long, 6h say; the run goes on.  [default: as long as it takes]",
)

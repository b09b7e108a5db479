"""Pods without Kubernetes: a container's processes in namespaces of their own, with a pod's files and variables."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.backend.workflow import Container, Finished

POD_TIMEOUT_S: Final = 600  # a step here takes seconds; one that hangs should not hang the tests
LAUNCHER: Final = "/kfp-launcher/launch"  # where an init container of the Workflow would put it

HOME: Final = "/tmp/home"

# A new root of the machine's own folders, but for /tmp and /run: what a container writes there, or makes beside them as
# the launcher /minio, is in memory and gone with it. The last process of the namespace takes the mounts along.
_ENTER: Final = r"""
set -e
root=$1 accounts=$2 launcher=$3 mounts=$4 home=$5; shift 5
mount -t tmpfs tmpfs "$root"
for entry in /*; do
    if [ -L "$entry" ]; then cp -P "$entry" "$root$entry"
    elif [ "$entry" = /proc ]; then mkdir "$root$entry"; mount -t proc proc "$root$entry"
    elif [ "$entry" = /tmp ]; then mkdir -m 1777 "$root$entry"
    elif [ -d "$entry" ]; then mkdir "$root$entry"; mount --rbind "$entry" "$root$entry"
    fi
done
run=$root$(realpath /var/run)
mount -t tmpfs tmpfs "$run"
mkdir -p "$run/secrets/kubernetes.io" "$root/kfp-launcher" "$root$home"
cp -R "$accounts" "$run/secrets/kubernetes.io/serviceaccount"
touch "$root/kfp-launcher/launch"
mount --bind "$launcher" "$root/kfp-launcher/launch"
while IFS='=' read -r target source; do
    if [ -n "$target" ]; then mkdir -p "$root$target"; mount --rbind "$source" "$root$target"; fi
done <<END
$mounts
END
exec chroot "$root" /bin/sh -c 'cd "$1" && shift && exec "$@"' pod "$home" "$@"
"""
_NAMESPACES: Final = ("unshare", "--mount", "--pid", "--fork", "--kill-child=KILL")
_SYSTEM: Final = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin")
_REPOSITORY: Final = Path(__file__).parents[2]
_TOOLS: Final = ("unshare", "setpriv", "mount", "chroot", "realpath")


def missing() -> str:
    """Return why there can be no pods on this machine; empty where there can."""
    if sys.platform != "linux":
        return "pods need Linux's namespaces"
    if os.geteuid() != 0:
        return "pods need root, for mount namespaces"
    absent = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if absent:
        return f"pods need {', '.join(absent)} (util-linux, coreutils)"
    tried = subprocess.run(
        [*_NAMESPACES, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True, check=False
    )
    return f"pods need mount namespaces: {tried.stderr.strip()}" if tried.returncode else ""


@dataclass(frozen=True, slots=True)
class NamespacePods:
    """Runs containers as root of this machine, in namespaces of their own.

    Attributes:
        programs: folder with `driver` and `launcher-v2`.
        accounts: folder with a service account's `ca.crt`, `namespace` and `token`.
        environment: variables of every pod.
        options: values of the programs' options that name the cluster's services, by option.
        claims: folders of the persistent volume claims.
        secrets: values of the Secrets' keys.
        shared: folders that all pods see as they are, also where they lie in /tmp.
        tools: folder of programs that come before all others on the PATH; None for none.
    """

    programs: Path
    accounts: Path
    environment: Mapping[str, str]
    options: Mapping[str, str]
    claims: Mapping[str, Path] = field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    shared: Sequence[Path] = ()
    tools: Path | None = None

    def run(self, container: Container, folder: Path) -> Finished:
        """Run a container to its end; all of its processes end with it, and with this process."""
        root = folder / "root"
        root.mkdir()
        path = [f"{sys.prefix}/bin", str(self.programs), *_SYSTEM]
        variables = {
            "HOME": HOME,
            "PATH": ":".join([str(self.tools), *path] if self.tools else path),
            "KFP_POD_NAME": f"pod-{folder.name}",
            "KFP_POD_UID": f"uid-{folder.name}",
            **self.environment,
            **container.environment,
            **{name: self.secrets[secret][key] for name, (secret, key) in container.secrets.items()},
        }
        command = self._with_services([_expanded(word, variables) for word in container.command])
        mounts = [(path, path) for path in self._shared()]
        mounts += [(Path(target), self.claims[claim]) for target, claim in container.claims.items()]
        told = "\n".join(f"{target}={source}" for target, source in mounts)
        entered = [*_NAMESPACES, "/bin/sh", "-c", _ENTER, "enter", str(root), str(self.accounts)]
        entered += [str(self.programs / "launcher-v2"), told, HOME, *command]
        try:
            done = subprocess.run(
                ["setpriv", "--pdeathsig", "KILL", *entered],
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,
                timeout=POD_TIMEOUT_S,
            )
        finally:
            root.rmdir()
        return Finished(done.returncode, done.stdout)

    def _shared(self) -> list[Path]:
        """Return the folders in /tmp that a pod needs: data, and whatever of this installation lies there."""
        wanted = {*self.shared, self.programs, Path(sys.prefix), Path(sys.base_prefix), _REPOSITORY}
        return sorted(path for path in wanted if path.is_relative_to("/tmp"))

    def _with_services(self, command: Sequence[str]) -> list[str]:
        """Put the services' addresses in for those of a cluster, among the program's own options only."""
        end = command.index("--") if "--" in command else len(command)
        changed = list(command)
        for place in range(end - 1):
            changed[place + 1] = self.options.get(command[place], changed[place + 1])
        return changed


def _expanded(word: str, variables: Mapping[str, str]) -> str:
    """Fill in `$(NAME)` as Kubernetes does: unknown names are left, `$$` stands for one `$`."""

    def value(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else variables.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)", value, word)

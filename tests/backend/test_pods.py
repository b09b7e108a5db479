"""That pods have what Kubernetes would give them, and leave nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.backend.pods import HOME, LAUNCHER, NamespacePods, missing
from tests.backend.workflow import Container, Finished
from tests.support.command import processes

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


@pytest.fixture
def pods(tmp_path: Path) -> NamespacePods:
    if lack := missing():
        pytest.skip(lack)
    for name, content in {"launcher-v2": "#!/bin/sh\necho launched\n", "driver": '#!/bin/sh\necho "$@"\n'}.items():
        program = tmp_path / "programs" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(content)
        program.chmod(0o755)
    (tmp_path / "accounts").mkdir()
    (tmp_path / "accounts" / "namespace").write_text("kubeflow")
    (tmp_path / "claim").mkdir()
    return NamespacePods(
        programs=tmp_path / "programs",
        accounts=tmp_path / "accounts",
        environment={"EVERY": "pod"},
        options={"--store": "127.0.0.1"},
        claims={"data": tmp_path / "claim"},
        secrets={"login": {"password": "xyz"}},
        shared=(tmp_path,),
    )


def run(pods: NamespacePods, folder: Path, *command: str, **more: object) -> Finished:
    place = folder / "pod"
    place.mkdir(exist_ok=True)
    done = pods.run(Container(command, **more), place)  # type: ignore[arg-type]
    assert list(place.iterdir()) == []
    return done


def shell(pods: NamespacePods, folder: Path, script: str, **more: object) -> Finished:
    return run(pods, folder, "/bin/sh", "-c", script, **more)


def test_a_container_s_status_and_output_come_back(pods: NamespacePods, tmp_path: Path) -> None:
    assert shell(pods, tmp_path, "echo out; echo err >&2; exit 7") == Finished(7, "out\nerr\n")


def test_a_program_that_is_not_there_fails(pods: NamespacePods, tmp_path: Path) -> None:
    assert run(pods, tmp_path, "nosuch").status == 127


def test_a_pod_has_its_service_account_launcher_and_variables(pods: NamespacePods, tmp_path: Path) -> None:
    script = (
        f"cat /var/run/secrets/kubernetes.io/serviceaccount/namespace; echo; {LAUNCHER}; pwd; echo $EVERY $OWN $PASS"
    )
    done = shell(pods, tmp_path, script, environment={"OWN": "mine"}, secrets={"PASS": ("login", "password")})
    assert done == Finished(0, f"kubeflow\nlaunched\n{HOME}\npod mine xyz\n")
    assert not Path(ACCOUNT).exists()


def test_a_pod_s_files_are_its_own_but_for_what_is_mounted(pods: NamespacePods, tmp_path: Path) -> None:
    script = f"mkdir /of-a-pod; for place in /of-a-pod/x /tmp/of-a-pod /data/y {tmp_path}/z; do echo x > $place; done"
    assert shell(pods, tmp_path, script, claims={"/data": "data"}) == Finished(0, "")
    assert not Path("/of-a-pod").exists()
    assert not Path("/tmp/of-a-pod").exists()
    assert not Path("/data").exists()
    assert (tmp_path / "claim" / "y").read_text() == (tmp_path / "z").read_text() == "x\n"
    assert shell(pods, tmp_path, "ls /tmp/of-a-pod").status != 0


def test_no_process_outlives_its_pod(pods: NamespacePods, tmp_path: Path) -> None:
    mark = f"of-{tmp_path.name}"
    assert shell(pods, tmp_path, f"setsid sh -c 'sleep 600; : {mark}' >/dev/null 2>&1 &") == Finished(0, "")
    assert processes(mark) == []


def test_a_pod_sees_no_others_processes(pods: NamespacePods, tmp_path: Path) -> None:
    assert shell(pods, tmp_path, "grep -ls '[p]ytest' /proc/[0-9]*/cmdline").output == ""


def test_addresses_are_put_in_for_the_program_alone(pods: NamespacePods, tmp_path: Path) -> None:
    done = run(pods, tmp_path, "driver", "--store", "metadata", "--other", "a", "--", "--store", "mine")
    assert done.output == "--store 127.0.0.1 --other a -- --store mine\n"


def test_variables_in_a_command_are_kubernetes_s(pods: NamespacePods, tmp_path: Path) -> None:
    done = run(pods, tmp_path, "driver", "$(EVERY)", "$(NONE)", "$$(EVERY)", "$EVERY")
    assert done.output == "pod $(NONE) $(EVERY) $EVERY\n"

"""Kubeflow with the pipeline that alarms start."""

from __future__ import annotations

from tests.support.kubeflow_double import KubeflowDouble


def kubeflow_with_drift(namespace: str = "") -> KubeflowDouble:
    """A pipeline `drift` that takes what the monitor's tests give it, and an experiment `monitoring`."""
    kubeflow = KubeflowDouble(namespaces=(namespace,) if namespace else ())
    whole, text = (
        {"parameterType": "NUMBER_INTEGER", "isOptional": True},
        {"parameterType": "STRING", "isOptional": True},
    )
    parameters = {"reference": text, "current": text, "output_folder": text, "window_max_rows": whole}
    spec = {"root": {"dag": {}, "inputDefinitions": {"parameters": parameters}}}
    pipeline = kubeflow._create_pipeline({"name": "drift", "namespace": namespace})["pipeline_id"]
    kubeflow._create_version(pipeline, "v1", "v1", {}, [spec])
    kubeflow._create_experiment({"display_name": "monitoring", "namespace": namespace})
    return kubeflow

"""How tasks are placed and retried: what differs between a cluster and this machine, and between clusters.

A profile is made in code, or read from a YAML file whose keys are its attributes.
"""

from driftline.pipelines.profile.cluster import LOCAL, STEPS, Profile, Step, StepSettings, retry_window, step_name

__all__ = ["LOCAL", "STEPS", "Profile", "Step", "StepSettings", "retry_window", "step_name"]

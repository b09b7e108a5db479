"""How the components are declared to Kubeflow Pipelines: what `component.py` of every part shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kfp import dsl
from kfp.dsl.python_component import PythonComponent

from driftline.components import images


class Component(PythonComponent):
    """A component that runs in one of Driftline's images, chosen when a task is made or YAML is written.

    Attributes:
        image: name of the image, ``embed`` or ``kernels``.
    """

    def __init__(self, declared: PythonComponent, image: str) -> None:
        super().__init__(declared.component_spec, declared.python_func)
        self.image = image

    def __call__(self, *args: Any, **inputs: Any) -> Any:
        """Make a task of it, in the image of now."""
        self._choose_image()
        return super().__call__(*args, **inputs)

    @property
    def pipeline_spec(self) -> Any:
        """The component as a pipeline of one task, in the image of now."""
        self._choose_image()
        return super().pipeline_spec

    def _choose_image(self) -> None:
        implementation: Any = self.component_spec.implementation
        implementation.container.image = images.reference(self.image)


def component(image: str) -> Callable[[Callable[..., Any]], Component]:
    """Declare a function as a component: its body imports the step, calls it, and returns.

    Only the function's own source travels; the image holds kfp and this package.

    Args:
        image: name of the image that it runs in.
    """

    def declare(function: Callable[..., Any]) -> Component:
        declared: Any = dsl.component(function, base_image=images.DEFAULTS[image], install_kfp_package=False)
        return Component(declared, image)

    return declare

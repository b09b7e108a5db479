"""`driftline compile`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from driftline.components.errors import UsageError

if TYPE_CHECKING:
    from driftline.pipelines.profile import Profile

NONE: Final = "none"
FAN_OUTS: Final = ("embed", "kernels")
PIPELINE_FILE: Final = "driftline-{}.yaml"  # the UI takes a file's name, up to the first dot, as the pipeline's
PAGE_FILE: Final = "driftline-{}.md"
KUBERNETES: Final = "kubernetes"


@dataclass(frozen=True, slots=True)
class _Options:
    """The options that count before a profile's file."""

    images: Mapping[str, str]
    gpu: frozenset[str]
    node_selector: Mapping[str, str]
    model_claim: str


def _pairs(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    metavar = str(parameter.metavar)
    pairs: dict[str, str] = {}
    for value in values:
        key, separator, rest = value.partition("=")
        if not key or not separator or not rest:
            raise click.BadParameter(f"expected {metavar}, got {value!r}")
        if key in pairs:
            raise click.BadParameter(f"expected {key} once, got {key}={pairs[key]} and {value}")
        pairs[key] = rest
    return pairs


def _images(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    from driftline.components.images import DEFAULTS

    for value in values:
        name, separator, reference = value.partition("=")
        if name not in DEFAULTS or not separator or not reference:
            raise click.BadParameter(f"expected NAME=REFERENCE with NAME one of {', '.join(DEFAULTS)}, got {value!r}")
    return _pairs(context, parameter, values)


def _fan_outs(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    if NONE in values and len(set(values)) > 1:
        raise click.BadParameter(f"expected {NONE} alone or fan-outs, got {', '.join(values)}")
    return values


def _object_name(context: click.Context, parameter: click.Parameter, value: str) -> str:
    from driftline.pipelines.profile.values import is_object_name

    if value and not is_object_name(value, dots=parameter.name != "namespace"):
        raise click.BadParameter(f"expected a Kubernetes name of a-z, 0-9 and -, got {value!r}")
    return value


@click.command("compile")
@click.argument("name", required=False, metavar="[PIPELINE_OR_COMPONENT]")
@click.option("--out", required=True, metavar="FILE", help="YAML file to write; with --all a folder.")
@click.option(
    "--all", "everything", is_flag=True, help="Compile both pipelines, with a page on each, and every component."
)
@click.option("--profile", "profile_file", metavar="FILE", help="What the cluster needs, as YAML; see the README.")
@click.option(
    "--image",
    "images",
    multiple=True,
    callback=_images,
    metavar="NAME=REF",
    help="Image reference for embed or kernels, by digest in production; repeatable.",
)
@click.option(
    "--gpu",
    type=click.Choice([*FAN_OUTS, NONE]),
    multiple=True,
    callback=_fan_outs,
    help="Fan-outs whose tasks, and no others, ask for a GPU each; repeatable.  [default: embed]",
)
@click.option(
    "--node-selector",
    multiple=True,
    callback=_pairs,
    metavar="KEY=VALUE",
    help="Label of the nodes for tasks that ask for a GPU; repeatable.",
)
@click.option(
    "--model-claim",
    default="",
    metavar="PVC",
    help="Persistent volume claim in which models from gs:// are kept between tasks and runs.",
)
@click.option(
    "--choices",
    is_flag=True,
    help="Offer a pipeline's settings that are words to choose from, in Kubeflow's form; KFP before 2.16 refuses the "
    "file.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["pipeline", KUBERNETES]),
    default="pipeline",
    show_default=True,
    help="What to upload, or a pipeline as Pipeline and PipelineVersion objects to apply.",
)
@click.option("--namespace", default="", callback=_object_name, metavar="NS", help="Of the Kubernetes objects.")
@click.option(
    "--version-name",
    default="",
    callback=_object_name,
    metavar="NAME",
    help="Of the PipelineVersion.  [default: by Driftline's version and the digest of the pipeline]",
)
def compile_(
    name: str | None,
    out: str,
    everything: bool,
    profile_file: str | None,
    images: dict[str, str],
    gpu: tuple[str, ...],
    node_selector: dict[str, str],
    model_claim: str,
    choices: bool,
    form: str,
    namespace: str,
    version_name: str,
) -> None:
    """Compile a pipeline (drift, unless named, or backfill) or a component to YAML for a Kubeflow cluster.

    Options count before what --profile says. One that would change nothing in what is compiled is refused.
    """
    from driftline.components.storage.objects.store import join, write_bytes
    from driftline.pipelines import compiled
    from driftline.pipelines.catalogue import COMPONENTS, PIPELINES

    if everything and name is not None:
        raise UsageError(f"--all: expected no name beside it, got {name}")
    name = name or "drift"
    if name not in PIPELINES and name not in COMPONENTS:
        raise UsageError(
            f"pipeline: unknown {name!r}; choose one of: {', '.join(PIPELINES)}; or of the components: "
            f"{', '.join(COMPONENTS)}"
        )
    _check_format(form, namespace, version_name, "--all" if everything else name)
    if choices and not everything and name not in PIPELINES:
        raise UsageError(
            f"--choices: expected a pipeline, {' or '.join(PIPELINES)}; {name} is a component, without a form"
        )
    options = _Options(images, frozenset(gpu), node_selector, model_claim)
    profile = _profile(profile_file, options)
    names = [*PIPELINES, *COMPONENTS] if everything else [name]
    pipelines = {one: compiled.compile_pipeline(one, profile, choices=choices) for one in names if one in PIPELINES}
    components = {one: compiled.compile_component(one, profile) for one in names if one in COMPONENTS}
    _check_effect("what is compiled" if everything else name, options, pipelines, components)
    if not pipelines and profile_file is not None and COMPONENTS[name].image not in profile.images:
        raise UsageError(
            f"--profile: expected images.{COMPONENTS[name].image} in {profile_file}: of a profile, a component takes "
            "its image only"
        )
    if form == KUBERNETES:
        pipelines[name] = compiled.compile_objects(
            name, profile, namespace=namespace, version_name=version_name, choices=choices
        )
    files = {PIPELINE_FILE.format(one): text for one, text in pipelines.items()}
    files |= {f"{one}.yaml": text for one, text in components.items()}
    if everything:
        files |= {PAGE_FILE.format(one): compiled.explain(one, text) for one, text in pipelines.items()}
    for file, text in files.items():
        place = join(out, file) if everything else out
        write_bytes(place, text.encode())
        click.echo(place)


def _check_format(form: str, namespace: str, version_name: str, what: str) -> None:
    from driftline.pipelines.catalogue import PIPELINES

    if form == KUBERNETES and what not in PIPELINES:
        raise UsageError(f"--format {KUBERNETES}: expected a pipeline, {' or '.join(PIPELINES)}, got {what}")
    for option, value in {"--namespace": namespace, "--version-name": version_name}.items():
        if value and form != KUBERNETES:
            raise UsageError(f"{option}: expected --format {KUBERNETES} beside it, as other files hold none")


def _profile(file: str | None, options: _Options) -> Profile:
    """Return the file's profile, or the default, with the options over it."""
    from driftline.pipelines.profile import STEPS, Profile

    profile = Profile() if file is None else Profile.from_file(file)
    settings: dict[str, Any] = {}
    if options.images:
        settings["images"] = {**profile.images, **options.images}
    if options.gpu:
        settings["gpu"] = options.gpu - {NONE}
        # How many GPUs a step's tasks ask for does not matter where the options give them none.
        settings["steps"] = {
            step: own if STEPS[step].gpu in options.gpu else own.model_copy(update={"gpus": None})
            for step, own in profile.steps.items()
        }
    if options.node_selector:
        settings["gpu_node_selector"] = {**profile.gpu_node_selector, **options.node_selector}
    if options.model_claim:
        settings["model_claim"] = options.model_claim
    return profile.changed(settings, "options" if file is None else f"{file} with the options")


def _check_effect(whole: str, options: _Options, pipelines: Mapping[str, str], components: Mapping[str, str]) -> None:
    """Refuse an option that changes nothing in what was compiled: who gave it believes that it does."""
    from driftline.pipelines.compiled import steps_of, steps_with_gpu
    from driftline.pipelines.profile import STEPS

    placed = [STEPS[step] for text in pipelines.values() for step in steps_of(text)]
    images = {step.image for step in placed} | {STEPS[one].image for one in components}
    for name in options.images:
        if name not in images:
            raise UsageError(f"--image {name}: no task of {whole} runs in it; expected {' or '.join(sorted(images))}")
    if not pipelines:
        given = {
            "--gpu": options.gpu,
            "--node-selector": options.node_selector,
            "--model-claim": options.model_claim,
        }
        for option in (option for option, value in given.items() if value):
            raise UsageError(f"{option}: expected a pipeline; {whole} is a component, placed by who makes a task of it")
    fan_outs = {step.gpu for step in placed if step.gpu}
    for fan_out in options.gpu - {NONE} - fan_outs:
        raise UsageError(
            f"--gpu {fan_out}: {whole} has no such tasks; expected {' or '.join(sorted(fan_outs))}, or none"
        )
    if options.node_selector and not any(steps_with_gpu(text) for text in pipelines.values()):
        raise UsageError(
            f"--node-selector: no task of {whole} asks for a GPU as it is compiled; expected --gpu "
            f"{' or '.join(sorted(fan_outs))} beside it, or node_selector in a profile for all tasks"
        )
    if options.model_claim and not any(step.models for step in placed):
        raise UsageError(f"--model-claim: no task of {whole} reads a model; expected the pipeline backfill")

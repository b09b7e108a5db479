"""The kinds of value in a profile, each checked as Kubernetes and KFP will check it: quantities, durations, names."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError


def expected(what: str) -> PydanticCustomError:
    """Return the error of a value that is not what was expected; who shows it adds the key and what was got."""
    return PydanticCustomError("expected", "expected " + what)  # pyright: ignore[reportArgumentType]


def _text(pattern: str, what: str, length: int) -> AfterValidator:
    """Return the check of a text against a whole pattern and a greatest length."""
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if len(text) > length or not compiled.fullmatch(text):
            raise expected(what)
        return text

    return AfterValidator(check)


# Quantities: k8s.io/apimachinery/pkg/api/resource. KFP's SDK takes fewer spellings than Kubernetes and, with `K`, one
# that Kubernetes refuses; so what is typed is checked by Kubernetes' grammar and handed on as both take it.
_QUANTITY: Final = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?\d{1,2}))?")
_SUFFIXES: Final = {
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("num", start=-3)},
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTPE", start=1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", start=1)},
}
_MILLI: Final = Decimal("0.001")
_LARGEST: Final = Decimal(2**63 - 1)  # Kubernetes keeps quantities in 64 bits
_SDK_MEMORY: Final = re.compile(r"\d+(?:[KMGTPE]i|[MGTPE])?")
LEAST_MEMORY: Final = Decimal(1024**2)  # less is a forgotten unit: no interpreter starts in it


def amount(quantity: str) -> Decimal | None:
    """Return the number that a Kubernetes quantity such as ``500m`` or ``1.5Gi`` stands for; None where it is none."""
    match = _QUANTITY.fullmatch(quantity)
    if match is None:
        return None
    digits, suffix, exponent = match.groups()
    return Decimal(digits) * (_SUFFIXES[suffix] if suffix else Decimal(10) ** int(exponent or 0))


def _typed(value: Any) -> Any:
    """Return a number of the file as the text that was typed; YAML reads `cpu: 2` as a number."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _cpu(text: str) -> str:
    cores = amount(text)
    if cores is None or not _MILLI <= cores <= _LARGEST or cores % _MILLI:
        raise expected("cores, such as 2, 0.5 or 500m")
    return str(int(cores)) if cores == int(cores) else f"{int(cores / _MILLI)}m"


def _memory(text: str) -> str:
    size = amount(text)
    if size is None or not LEAST_MEMORY <= size <= _LARGEST or size % 1:
        raise expected("an amount of memory with its unit, such as 8Gi or 1.5Gi")
    return text if _SDK_MEMORY.fullmatch(text) else str(int(size))


Cpu = Annotated[str, BeforeValidator(_typed), AfterValidator(_cpu)]
"""A Kubernetes quantity of processors, in thousandths at the least."""

Memory = Annotated[str, BeforeValidator(_typed), AfterValidator(_memory)]
"""A Kubernetes quantity of bytes."""

_DURATION: Final = re.compile(r"(?=\d)(?:(\d{1,4})d)?(?:(\d{1,6})h)?(?:(\d{1,7})m)?(?:(\d{1,8})s)?")
SHORTEST: Final = timedelta(minutes=1)  # no step ends sooner: its interpreter and libraries take seconds to start
LONGEST: Final = timedelta(days=30)


def _duration(value: Any) -> timedelta:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is not None:
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        value = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    # A bare number is refused: YAML reads `6:00` as one, and it would be 360 of what?
    if not isinstance(value, timedelta) or not SHORTEST <= value <= LONGEST:
        raise expected("a duration from 1m to 30d, such as 6h, 90m or 1h30m")
    return value


Duration = Annotated[timedelta, BeforeValidator(_duration)]
"""A length of time, in a file written with its units."""

_LABEL: Final = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN: Final = rf"{_LABEL}(?:\.{_LABEL})*"
_QUALIFIED: Final = r"[A-Za-z0-9](?:[-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?"

ClaimName = Annotated[
    # KFP names the pod's volume after the claim, and a volume's name is shorter than a claim's and has no dots.
    str, _text(_LABEL, "the name of a volume claim: at most 63 of a-z, 0-9 and -", 63)
]
ClaimNameOrNone = Annotated[str, _text(rf"(?:{_LABEL})?", "the name of a volume claim, or an empty text", 63)]
SecretName = Annotated[str, _text(_SUBDOMAIN, "the name of a Kubernetes Secret: a-z, 0-9, - and .", 253)]
SecretKey = Annotated[str, _text(r"[-._A-Za-z0-9]+", "a key of the Secret's data: letters, digits, -, _ and .", 253)]
VariableName = Annotated[
    str, _text(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable: letters, digits and _", 253)
]
KeyName = Annotated[
    str,
    _text(
        rf"(?:{_SUBDOMAIN}/)?{_QUALIFIED}",
        "a Kubernetes key: a name of letters, digits, -, _ and ., after a domain/",
        317,
    ),
]
LabelValue = Annotated[
    str, _text(rf"(?:{_QUALIFIED})?", "a label's value: at most 63 letters, digits, -, _ and ., in quotes", 63)
]
ResourceName = Annotated[
    str, _text(rf"{_SUBDOMAIN}/{_QUALIFIED}", "a resource of the nodes, such as nvidia.com/gpu", 317)
]


def _pinned(text: str) -> str:
    tag = text.rpartition("/")[2].partition(":")[2]
    if "@" not in text and tag in ("", "latest"):
        raise expected("an image with its digest, or with a version as its tag: what runs must not change unseen")
    return text


ImageReference = Annotated[
    str,
    _text(
        r"(?:[A-Za-z0-9.-]+(?::\d+)?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*(?::\w[\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?",
        "an image such as registry.example.org/driftline/embed@sha256:… (64 hexadecimal digits)",
        1024,
    ),
    AfterValidator(_pinned),
]


def _verbatim(text: str) -> str:
    if "{{" in text:
        raise expected("a text without {{, which Argo would fill in")
    return text


Verbatim = Annotated[str, AfterValidator(_verbatim)]
"""A text that reaches the pod as it is."""


def _mount_path(text: str) -> str:
    parts = text.split("/")
    if not text.startswith("/") or text == "/" or ":" in text or any(part in ("", ".", "..") for part in parts[1:]):
        raise expected("the whole path of a folder, such as /data")
    if parts[1] in _TAKEN:
        raise expected(f"a folder outside /{parts[1]}, which the container or KFP itself uses")
    return text


# What a step needs to start, and where KFP's launcher mounts folders of its own.
_TAKEN: Final = frozenset(
    {
        *("bin", "boot", "dev", "etc", "lib", "lib64", "proc", "root", "run", "sbin", "sys", "tmp", "usr"),
        *("gcs", "kfp-launcher", "minio", "s3", ".cache", ".config", ".local"),
    }
)
MountPath = Annotated[str, AfterValidator(_mount_path)]

_FILE: Final = re.compile(r"gs://[^/\s]+/\S.*|/.+")


def _file(text: str) -> str:
    if text and (_FILE.fullmatch(text) is None or text.endswith("/")):
        raise expected("a gs:// URI or the whole path of a file, such as /data/encoder.json, or an empty text")
    return _verbatim(text)


FileOrNone = Annotated[str, AfterValidator(_file)]
"""A file that a task reads."""


def _price(value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and 0 <= value < 1e300):
        raise expected("a number of at least 0")
    return float(value)


Price = Annotated[float, BeforeValidator(_price)]
"""An amount of money in any currency; 0 where it is not to be reckoned."""

WholeNumber = Annotated[int, Field(strict=True, ge=0)]
Retries = Annotated[int, Field(strict=True, ge=0, le=10)]
Count = Annotated[int, Field(strict=True, ge=1, le=1000)]
"""A whole number of at least one."""


def is_object_name(text: str, *, dots: bool = True) -> bool:
    """Tell whether a Kubernetes object, or without dots a namespace, may have this name."""
    pattern, length = (_SUBDOMAIN, 253) if dots else (_LABEL, 63)
    return len(text) <= length and re.fullmatch(pattern, text) is not None

"""What a PATCH asks for: the change that it makes of an object, and the options of the write."""

from collections.abc import Mapping
from dataclasses import replace

from onepass.apiserver import parameters, patches, strictness
from onepass.apiserver.patches import Change
from onepass.apiserver.ports import Limits
from onepass.registry import fieldowners
from onepass.registry.fieldowners import Write
from onepass.registry.strategy import Strategy


def read(
    kind: str, body: bytes, asked: Mapping[str, str], strategy: Strategy, limits: Limits, write: Write
) -> tuple[Change, Write]:
    """Of a body of media type `kind` that `patches.check_options` lets pass. Raises what reading it raises."""
    if kind != patches.APPLY:
        change = patches.keeping_the_name(patches.parse(kind, body, strategy.model, limits))
        return change, replace(write, form="patch", odd=strictness.asked(write.field_validation, body, kind))
    config, force = patches.configuration(body, limits), parameters.flag(asked.get("force"))
    odd = strictness.asked(write.field_validation, body, kind)
    write = replace(write, form="apply", config=config, force=force, odd=odd)
    return fieldowners.applying(strategy, write), write

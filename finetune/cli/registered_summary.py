"""The recalibration of a model in MLflow in a dozen lines, and as plain values for scripts."""

from __future__ import annotations

import json

from finetune.cli.deployed_summary import aligned, measured_rows, plain_values
from finetune.registered_run import Registered


def registered(found: Registered, as_json: bool) -> str:
    """What the command writes."""
    if as_json:
        values = {"version": found.address, "parent": found.parent, "alias": found.alias}
        return json.dumps(plain_values(found.done) | values, indent=2)
    return "\n".join(registered_lines(found))


def registered_lines(found: Registered) -> list[str]:
    """What was measured, what the gate says, what serves it and what to type next."""
    rows = [*measured_rows(found.done), ("version", [logged(found)])]
    if found.address is not None:
        name, _, version = found.address.rpartition("/")
        if found.alias:
            rows.append(("next", [f"finetune history {name}", f"finetune rollback {name}@{found.alias}"]))
        elif version.isdecimal():
            rows.append(("next", [f"finetune history {name}"]))
    return aligned(rows)


def logged(found: Registered) -> str:
    if found.address is None:
        return "none: nothing was registered"
    served = f"served as {found.alias}" if found.alias else "no alias was moved"
    return f"{found.address}, made from {found.parent}; {served}"

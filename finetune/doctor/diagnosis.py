"""A whole examination: all findings there are for what was given, and the inventory of the sites."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from finetune.batchnorm.shift import Shift
from finetune.doctor.calling import calling, given_back
from finetune.doctor.company import company
from finetune.doctor.facts import SiteFacts
from finetune.doctor.finding import Finding, by_severity
from finetune.doctor.flags import flags
from finetune.doctor.mode_gap import ModeGap, gap_found, mode_gap
from finetune.doctor.on_images import far_from_stored, shifts_of, stored_is_not_population, wrong_scale
from finetune.doctor.patient import Patient, Seen
from finetune.doctor.schedule import schedule
from finetune.doctor.stored_numbers import stored_numbers

TOGETHER = 16
"""Images in the batch in which a prediction is compared with itself."""


@dataclass(frozen=True)
class Plan:
    """A training that is meant to come. What is not known is None. steps: of all of it."""

    steps: int | None = None
    batch_size: int | None = None


@dataclass(frozen=True)
class Diagnosis:
    """findings: the serious ones first. shifts: by site path, where there were images. gap: where they had labels."""

    address: str
    format: str
    findings: tuple[Finding, ...]
    facts: tuple[SiteFacts, ...]
    images: int
    shifts: dict[str, Shift]
    gap: ModeGap | None

    @property
    def serious(self) -> bool:
        return any(finding.severity == "serious" for finding in self.findings)


def diagnose(patient: Patient, seen: Seen | None = None, plan: Plan | None = None) -> Diagnosis:
    """Everything that can be told; the patient is afterwards as it was before."""
    if patient.model is None:
        return _diagnosed(patient, seen, plan or Plan())
    with given_back(patient.model):
        return _diagnosed(patient, seen, plan or Plan())


def _diagnosed(patient: Patient, seen: Seen | None, plan: Plan) -> Diagnosis:
    findings = list(stored_numbers(patient.facts, patient.repair))
    broken = any(finding.kind == "broken-statistics" for finding in findings)
    findings += _of_settings(patient, plan)
    shifts: dict[str, Shift] = {}
    gap = None
    if seen is not None:
        findings += _of_calls(patient, seen)
    if seen is not None and not broken:
        moments, _ = patient.network.input_moments(seen.batches)
        shifts = shifts_of(patient.network.sites, moments, patient.reference)
        first = patient.network.sites[0]
        expected = patient.reference[first.path].statistics() if patient.reference else first.statistics
        off = list(wrong_scale(first, expected, moments[0], patient.address))
        findings += off or far_from_stored(shifts, patient.repair)
        gap = _gap(patient, seen)
        findings += gap_found(gap, patient.address, patient.reference is not None) if gap else ()
    if patient.reference is not None and not broken:
        findings += stored_is_not_population(
            patient.network.sites, patient.reference, patient.carried, patient.address
        )
    return Diagnosis(
        patient.address,
        patient.format,
        by_severity(findings),
        patient.facts,
        seen.count if seen else 0,
        shifts,
        gap,
    )


def _of_settings(patient: Patient, plan: Plan) -> Iterator[Finding]:
    if patient.model is not None:
        yield from flags(patient.model, patient.sites)
        yield from schedule(patient.sites, plan.steps, plan.batch_size)


def _of_calls(patient: Patient, seen: Seen) -> Iterator[Finding]:
    some = (
        np.concatenate(seen.batches)[:TOGETHER]
        if len(seen.batches[0]) < TOGETHER
        else seen.batches[0][:TOGETHER]
    )
    if patient.model is not None:
        yield from calling(patient.model, some)
    if patient.predict is not None and len(some) > 1:
        yield from company(patient.predict, some, patient.address)


def _gap(patient: Patient, seen: Seen) -> ModeGap | None:
    if seen.labels is None or patient.predict is None:
        return None
    live = [site for site in patient.sites if site.calls] if patient.model is not None else None
    return mode_gap(patient.network, live, patient.predict, seen.batches, seen.labels, patient.reference)

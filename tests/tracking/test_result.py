"""A finished run reads well in MLflow's UI."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from finetune.result import Check
from finetune.tracking import log_result
from finetune.tracking.result import summary
from tests.sample_result import CHECKS, sample_result


@pytest.fixture
def result(tmp_path: Path) -> Any:
    (tmp_path / "report.html").write_text("<p>report</p>")
    (tmp_path / "model.keras").write_text("far too large")
    return sample_result(tmp_path, "retrain", shift=1.0)


@pytest.fixture
def run(result: Any, tracked: Callable[..., Any]) -> Any:
    return tracked(lambda tracking: log_result(tracking, result))


def test_metrics_have_few_prefixes_and_none_names_a_site(run: Any) -> None:
    prefixes = {name.rpartition("/")[0] for name in run.data.metrics}
    assert prefixes == {"test", "seconds", "bn_shift", "bn_depth"}
    assert len(run.data.metrics) == 7 + 4 + 3 + 3


def test_final_metrics_are_bars_and_the_shift_is_a_curve(run: Any, result: Any, client: MlflowClient) -> None:
    def points(name: str) -> list[tuple[int, float]]:
        return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]

    assert points("test/accuracy") == [(0, result.test.metrics["accuracy"])]
    assert points("bn_depth/kl") == [(site.index, site.shift_kl) for site in result.sites]
    ((step, mean),) = points("bn_shift/mean")
    assert step == result.epochs[-1].step
    assert mean == pytest.approx(sum(site.shift_mean for site in result.sites) / len(result.sites))


def test_every_site_and_every_check_is_a_row(
    run: Any, result: Any, artifact: Callable[[Any, str], Path]
) -> None:
    sites = json.loads(artifact(run, "bn_sites.json").read_text())
    assert sites["columns"][:5] == ["index", "path", "shift_mean", "shift_log_std", "shift_kl"]
    assert [row[1] for row in sites["data"]] == [site.path for site in result.sites]
    proof = json.loads(artifact(run, "proof.json").read_text())
    assert proof["data"] == [[check.name, "yes", check.detail] for check in result.checks]


def test_the_confusion_table_counts_every_test_image(
    run: Any, result: Any, artifact: Callable[[Any, str], Path]
) -> None:
    rows = json.loads(artifact(run, "confusion.json").read_text())["data"]
    assert sum(images for _, _, images in rows) == result.test.count


def test_small_files_of_the_run_folder_go_along(run: Any, client: MlflowClient) -> None:
    files = [file.path for file in client.list_artifacts(run.info.run_id)]
    assert "report.html" in files
    assert "model.keras" not in files


def test_the_tag_and_the_description_say_whether_the_policy_held(run: Any, tmp_path: Path) -> None:
    assert run.data.tags["bn.verified"] == "true"
    assert "verified: 5 of 5 checks held" in run.data.tags["mlflow.note.content"]
    broken = sample_result(tmp_path, checks=(*CHECKS, Check("statistics are fixed", False, "3 of 53 moved")))
    assert "**not verified**: 5 of 6 checks held" in summary(broken)
    assert "- failed: statistics are fixed: 3 of 53 moved" in summary(broken)

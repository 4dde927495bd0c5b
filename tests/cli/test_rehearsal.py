"""A dry run: what it says is what the run then does, and nothing is written."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import yaml

from analyses import activation_patching, approximation_audit, head_attribution, registry
from analyses.bundled import BUNDLED
from analyses.cli import rehearsal
from analyses.cli.main import main
from interp import HookedTransformer, tasks
from interp.prompts import PromptPairs
from tests.doubles import MINIMAL
from tests.sweeps.test_sweep_engine import counted
from tests.tiny import scattered_pairs


@pytest.fixture(scope="module")
def pairs(mini: HookedTransformer) -> PromptPairs:
    return tasks.build("color-noun", "recall", tokenizer=mini, n=3)


@pytest.mark.parametrize("sites", [["resid_pre", "z"], ["v"]])
def test_the_planned_rows_and_operations_of_patching_are_those_of_the_run(
    mini: HookedTransformer, pairs: PromptPairs, sites: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = activation_patching.planned(mini, pairs, sites=sites)
    found, made = counted(lambda: activation_patching.run(mini, pairs, sites=sites), monkeypatch, watched=False)
    assert sum(plan.rows_in_all for plan in plans) == found.attrs["rows_in_all"]
    assert found.attrs["rows_run"] <= sum(plan.rows for plan in plans)  # equal activations save more
    assert 0.85 < sum(plan.flop for plan in plans) / made < 1.05


def test_the_planned_ablations_are_those_of_the_run(mini: HookedTransformer, pairs: PromptPairs) -> None:
    plans = head_attribution.planned(mini, pairs, ablations=["zero", "mean"])
    found = head_attribution.run(mini, pairs, ablations=["zero", "mean"])
    assert sum(plan.rows_in_all for plan in plans) == found["ablated"].size


@pytest.mark.parametrize("asked", [{"sites": ["z", "q"], "edge_methods": []}, {"sites": [], "edge_methods": ["eap"]}])
def test_the_planned_operations_of_an_audit_are_about_those_of_the_run(
    gpt2: HookedTransformer, asked: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, few = scattered_pairs(), {"top_k": 3, "random": 4}
    plans = approximation_audit.planned(gpt2, pairs, **asked, **few)
    _, made = counted(lambda: approximation_audit.run(gpt2, pairs, **asked, **few), monkeypatch, watched=False)
    assert 0.5 < sum(plan.flop for plan in plans) / made < 2


@pytest.mark.parametrize("name", [name for name, analysis in BUNDLED.items() if analysis.plans])
def test_the_plans_take_what_the_run_takes(name: str) -> None:
    analysis = registry.get(name)
    run, planned = (inspect.signature(analysis.function(function)).parameters for function in ("run", "planned"))
    assert {key: one.default for key, one in run.items() if key not in ("progress", "found")} == {
        key: one.default for key, one in planned.items()
    }


@pytest.mark.parametrize("name", list(BUNDLED))
def test_every_bundled_analysis_that_computes_has_a_plan(name: str) -> None:
    assert BUNDLED[name].plans == (BUNDLED[name].needs != "results")


def refused(source: str, **how: object) -> None:
    raise AssertionError(f"the weights of {source} are read")


def pairs_of(out: str) -> str:
    found = re.search(r"^Pairs: (.*);", out, flags=re.MULTILINE)
    assert found is not None
    return found[1]


def test_a_dry_run_says_what_will_be_done_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(HookedTransformer, "from_pretrained", refused)
    monkeypatch.chdir(tmp_path)
    asked = {"behavior": None, "activation_patching": {"sites": ["z"], "head_roles": []}, "context_flow": None}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump({**MINIMAL, "analyses": asked, "model": "mini"}))
    assert main(["run", "my.yaml", "--dry-run", "--quiet", "--n", "2"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    row = re.search(r"^activation_patching +(\d+) of (\d+) +(\d+) ", out, flags=re.MULTILINE)
    assert row is not None
    assert row[2] == str(2 * 2 * 4 * 4)  # directions, pairs, layers, heads
    ladder = re.search(r"^behavior +(\d+) of (\d+) ", out, flags=re.MULTILINE)
    assert ladder is not None
    assert int(ladder[1]) == 2 * sum(map(int, re.findall(r"\w+ (\d+)", pairs_of(out))))  # clean and corrupted
    assert "billion operations a second" in out
    assert "At least: the counted operations alone, at that rate; fitting probes, for one, counts none" in out
    others = re.search(r"^If the model does not do it, another rung is explained: (.*)\.$", out, flags=re.MULTILINE)
    assert others is not None
    assert re.findall(r"(\w+) about [^,]* \(2 pairs\)", others[1]) == ["recall", "repeated_frame", "three"]
    assert [path.name for path in tmp_path.iterdir()] == ["my.yaml"]


def test_workers_that_share_a_machine_take_its_memory_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"behavior": None, "activation_patching": {"sites": ["z"], "head_roles": []}}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump({**MINIMAL, "analyses": asked, "model": "mini"}))
    monkeypatch.setattr("interp.run.free_memory", lambda: 10**8)
    monkeypatch.setattr(rehearsal, "operations_per_second", lambda model, pairs: 1e8)
    workers = ["--engine", "ray", "--workers", "100"]
    assert main(["run", str(tmp_path / "my.yaml"), "--dry-run", "--quiet", "--n", "2", *workers]) == 0
    rows = re.findall(
        r"^here \(cpu\) +(\d+) +\S+ GB +(yes|no) +(.*\S) +measured$", capsys.readouterr().out, re.MULTILINE
    )
    assert [row[:2] for row in rows] == [("1", "yes"), ("100", "no")]
    assert rows[0][2] == rows[1][2]  # they share its cores


def test_a_dry_run_says_what_a_finished_directory_would_keep(
    mini: HookedTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(HookedTransformer, "from_pretrained", lambda source, **how: mini)
    monkeypatch.chdir(tmp_path)

    def asked(*sites: str) -> list[str]:
        analyses = {"behavior": None, "activation_patching": {"sites": list(sites), "directions": ["denoising"]}}
        (tmp_path / "my.yaml").write_text(yaml.safe_dump({**MINIMAL, "analyses": analyses, "model": "mini"}))
        return ["run", "my.yaml", "--out", "there", "--quiet", "--n", "4"]

    assert main(asked("v")) == 0
    stood = {path: path.stat().st_mtime_ns for path in Path("there").rglob("*")}
    capsys.readouterr()
    assert main([*asked("v"), "--dry-run"]) == 0
    out, _ = capsys.readouterr()
    assert "Kept from an earlier run into there, if the weights are still the same: 2 of 2 analyses." in out
    assert "Nothing is left to compute." in out
    assert main([*asked("k"), "--dry-run"]) == 0
    assert (
        "Kept from an earlier run into there, if the weights are still the same: 1 of 2 analyses."
        in capsys.readouterr().out
    )
    assert {path: path.stat().st_mtime_ns for path in Path("there").rglob("*")} == stood


def test_an_explanation_is_planned_without_reading_a_weight(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(HookedTransformer, "from_pretrained", refused)
    asked = ["explain", "The cat is black. The cat is", "--to", "cat@2", "--dry-run", "--quiet"]
    assert main([*asked, "--from", "black", "--instead", "white,red,nothing at all"]) == 0
    out, _ = capsys.readouterr()
    assert "2 other words: white, red; dropped: 1." in out
    assert re.search(r"heads at the target, both ways +64 ", out)  # 2 directions, 2 words, 16 heads
    assert "It ends after 60 s (--seconds)" in out
    assert main([*asked, "--from", "?"]) == 2
    assert "Leave it out with --from '?'" in capsys.readouterr().err


def test_words_that_the_model_chooses_are_planned_by_their_number(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["explain", "I love the color red and the cat", "--from", "and", "--to", "cat"]
    assert main([*asked, "--dry-run", "--quiet", "--n", "3"]) == 0
    out, _ = capsys.readouterr()
    assert "3 other words; dropped: 0.\n3 of them are chosen from the model's own vocabulary, once it is loaded." in out
    assert re.search(r"heads at the target, both ways +96 ", out)  # 2 directions, 3 words, 16 heads


def test_where_only_the_model_knows_other_words_a_plan_asks_for_them(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["explain", "I tried to go home. The cat is", "--from", "tried", "--to", "cat", "--dry-run", "--quiet"]
    assert main(asked) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "Give --instead, or leave --dry-run out." in told
    assert main([*asked, "--instead", "tries"]) == 0


@pytest.mark.parametrize(("waiting", "says"), [(3.5, "load 3.5, 2 cores"), (2.0, "")])
def test_other_work_on_the_machine_is_named(monkeypatch: pytest.MonkeyPatch, waiting: float, says: str) -> None:
    monkeypatch.setattr(rehearsal.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(rehearsal.os, "getloadavg", lambda: (waiting, 0.0, 0.0))
    told = rehearsal.load()
    assert says in told
    assert bool(told) is bool(says)

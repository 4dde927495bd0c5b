"""Edges at the tokens of one role: a part of the whole edge, by path patching and by its estimates."""

from __future__ import annotations

import numpy as np
import pytest

from interp import HookedTransformer, InterpError, path_patching
from interp.attribution import Audit, edge_attribution
from interp.sweeps import PathPatching, plan
from tests.tiny import scattered_pairs
from tests.tolerance import close

SENDERS, RECEIVERS = ["embed", "L0H2"], ["L1H1.q", "L1H1.v", "MLP1", "logits"]


@pytest.mark.parametrize("direction", ["denoising", "noising"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_an_edge_at_a_role_is_the_edge_of_prompts_that_differ_there_alone(
    family: str, direction: str, request: pytest.FixtureRequest
) -> None:
    """The embedding differs at two tokens. With one of them made equal, all of the edge is at the other one."""
    model: HookedTransformer = request.getfixturevalue(family)
    pairs = scattered_pairs()
    receivers = [name if family == "gpt2" else name.replace("L1H1.v", "L1KV1.v") for name in RECEIVERS]
    options = {"direction": direction, "senders": ["embed"], "receivers": receivers, "minimum_gap": 0.0}
    found = path_patching(model, pairs, roles=["color", "noun"], **options)  # type: ignore[arg-type]
    assert found["patched"].dims == ("prompt", "sender", "receiver", "role")
    base = found["corrupted" if direction == "denoising" else "clean"]
    close(found["patched"].sel(role="noun"), base.broadcast_like(found["patched"].sel(role="noun")), size=6.0)
    changed = {name: getattr(pairs, name).ids.copy() for name in ("clean", "corrupted")}
    same, other = ("corrupted", "clean") if direction == "denoising" else ("clean", "corrupted")
    changed[other][:, 2] = changed[same][:, 2]  # token 4, the colour, still differs
    kept = type(pairs).from_tokens(
        changed["clean"], changed["corrupted"], correct=5, incorrect=9, answer_position=6,
        roles={name: pairs.clean.spans(name) for name in ("scene", "color", "noun")},
    )  # fmt: skip
    alone = path_patching(model, kept, **options)  # type: ignore[arg-type]
    close(found["patched"].sel(role="color"), alone["patched"], size=6.0)


def test_estimates_at_roles_add_up_and_are_audited_there(gpt2: HookedTransformer) -> None:
    pairs = scattered_pairs()
    options = {"senders": SENDERS, "receivers": RECEIVERS, "audit": None}
    whole = edge_attribution(gpt2, pairs, **options)["estimated_effect"]  # type: ignore[arg-type]
    parts = edge_attribution(gpt2, pairs, roles=["color", "scene"], **options)["estimated_effect"]  # type: ignore[arg-type]
    assert parts.dims == ("prompt", "sender", "receiver", "role")
    # all of the embedding's difference lies in the scene
    close(parts.sel(role="scene", sender="embed"), whole.sel(sender="embed"))
    audited = edge_attribution(
        gpt2, pairs, senders=SENDERS, receivers=RECEIVERS, roles=["color", "scene"], audit=Audit(top_k=3, random=3)
    )
    exact = path_patching(gpt2, pairs, senders=SENDERS, receivers=RECEIVERS, roles=["color", "scene"], minimum_gap=0.0)
    effect = exact["patched"] - exact["corrupted"]
    known = audited["audited"].values.astype(bool)
    assert known.sum() >= 4
    close(audited["exact_effect"].values[:, known], effect.values[:, known], size=6.0)
    assert np.isnan(audited["exact_effect"].values[:, ~known]).all()


def test_the_plan_counts_edges_at_each_role_and_unknown_roles_are_refused(gpt2: HookedTransformer) -> None:
    pairs = scattered_pairs()
    asked = PathPatching(senders=["embed"], receivers=["logits"], roles=["color", "noun"])
    assert plan(gpt2, pairs, asked).rows_in_all == 2 * len(pairs)
    for call in (path_patching, edge_attribution):
        with pytest.raises(InterpError, match="role 'nuon'"):
            call(gpt2, pairs, roles=["nuon"])  # type: ignore[operator]

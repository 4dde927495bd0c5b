"""The table of sites."""

from __future__ import annotations

import pytest

from interp import sites
from interp.errors import InterpError

CONTRACT = "resid_pre resid_mid resid_post attn_out mlp_out q k v scores pattern z result mlp_post embed".split()


def test_every_promised_site_is_in_the_table() -> None:
    assert set(CONTRACT) <= set(sites.SITES)
    assert all(site.name == name for name, site in sites.SITES.items())


def test_hook_names_are_those_of_transformer_lens() -> None:
    assert sites.site("q").hook_name(3) == "blocks.3.attn.hook_q"
    assert sites.site("pattern").hook_name(0) == "blocks.0.attn.hook_pattern"
    assert sites.site("embed").hook_name(5) == "hook_embed"


def test_unknown_site_names_the_nearest_and_the_list() -> None:
    with pytest.raises(InterpError, match=r"Unknown site 'resid_pr'\. Did you mean 'resid_pre'\? Choose from: embed, "):
        sites.site("resid_pr")


def test_layers() -> None:
    assert sites.check_layers(None, 3) == (0, 1, 2)
    assert sites.check_layers(-1, 3) == (2,)
    assert sites.check_layers([2, 0, 2], 3) == (0, 2)
    for bad in (3, -4):
        with pytest.raises(InterpError, match=f"Layer {bad} is out of range"):
            sites.check_layers([bad], 3)


def test_what_a_change_leads_to_within_a_block() -> None:
    after = {
        "resid_pre": set(sites.SITES) - {"embed", "pos_embed"},
        "q": {"q", "rot_q", "scores", "pattern", "z", "result", "attn_out"},
        "v": {"v", "scores", "pattern", "z", "result", "attn_out"},  # by stage; that of attention is one chain
        "z": {"z", "result", "attn_out"},
        "attn_out": {"attn_out"},
        "resid_mid": {"resid_mid", "mlp_pre", "mlp_post", "mlp_out", "resid_post"},
        "mlp_post": {"mlp_post", "mlp_out", "resid_post"},
        "resid_post": {"resid_post"},
    }
    for name in ("q", "v", "z", "attn_out"):
        after[name] |= after["resid_mid"]
    for name, expected in after.items():
        assert {other for other in sites.SITES if sites.site(name).leads_to(sites.site(other))} == expected, name
    for stage in ("attention", "mlp"):  # no two sites of a chain are beside each other
        names = [name for name, site in sites.SITES.items() if site.stage == stage]
        assert sorted(sum(sites.site(a).leads_to(sites.site(b)) for a in names) for b in names) == [
            *range(1, len(names) + 1)
        ]


def test_head_label() -> None:
    assert sites.head_label(9, 6) == "L9H6"

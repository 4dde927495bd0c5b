"""The exact engine on a model's own weights: what a change reaches is computed again, the rest is shared."""

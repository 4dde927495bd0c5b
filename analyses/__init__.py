"""The analyses, one method each, and the command ``interp`` that runs them as studies.

Every analysis is a module with ``run(model, pairs, **options) -> xarray.Dataset``.
"""

"""The sections of the page, each a function from results to a ``Section``."""

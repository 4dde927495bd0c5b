"""The command ``interp``: studies, runs on disk, the terminal. It joins the analyses with the page."""

"""Find the bad episodes of a session: `run.lint_session` reads, `rules` and `compare` judge, `report` shows."""

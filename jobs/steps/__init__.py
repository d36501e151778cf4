"""What verbs share: a session, a dry run, tests, audits, forecasts."""

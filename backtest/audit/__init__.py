"""The audit: account and fills rebuilt from a run's files, sharing nothing with the strategy."""

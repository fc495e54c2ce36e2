"""What a person learns: log, alerts, conditions and the health file."""

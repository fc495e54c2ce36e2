"""Telling a person: log, alerts, conditions and the health file."""

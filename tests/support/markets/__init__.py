"""Made-up and real markets."""

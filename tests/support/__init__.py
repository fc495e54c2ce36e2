"""Stand-ins and made-up markets that several tests share."""

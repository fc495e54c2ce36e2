"""Sessions, searches and browsers in processes of their own."""

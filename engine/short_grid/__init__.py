"""The short grid: sells exhausted pumps in many coins on order book and trade streams."""

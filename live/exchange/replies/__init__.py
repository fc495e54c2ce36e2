"""Pure parsers of the exchange's replies."""

"""Writing parameters that a search found into the configuration."""

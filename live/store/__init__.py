"""Everything a session keeps on disk: state, trades, the lock of an instance."""

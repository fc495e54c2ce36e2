"""One session from start to shutdown: assembly, admission, the loop, the ending."""

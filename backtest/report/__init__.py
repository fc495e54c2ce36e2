"""Reports of a run: tables on the console, charts, and the HTML page."""

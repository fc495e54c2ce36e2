"""Reports of a search: results files, charts, and the HTML page."""

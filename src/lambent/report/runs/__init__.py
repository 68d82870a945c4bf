"""The comparison of several runs as text, as a plot and as an HTML page."""

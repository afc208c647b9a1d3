"""results/report.html: all that is recorded and drawn, as one page that needs no network."""

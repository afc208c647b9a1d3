"""results/report.html: everything that is recorded and drawn, as one page that needs no network."""

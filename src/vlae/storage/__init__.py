"""Where everything lies, and how it is written and read."""

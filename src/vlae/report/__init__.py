"""Tables and figures, drawn from recorded results."""

"""The report's figures, as inline SVG without scripts."""

"""The models of a server: where they come from, what they are, how they are asked."""

"""Pipelines as a user of Driftline writes them, from its pipelines, its components and small steps of one's own."""

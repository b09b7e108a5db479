"""The steps of Driftline's pipelines, a folder each: pure mathematics, the step, its KFP declaration."""

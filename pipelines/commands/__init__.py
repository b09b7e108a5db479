"""The commands of `driftline`, a module each; :mod:`driftline.pipelines.cli` gathers them."""

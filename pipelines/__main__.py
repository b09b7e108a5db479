"""`python3 -m driftline.pipelines`: the `driftline` command where only the package is installed, as in the images."""

from driftline.pipelines.cli import main

main()

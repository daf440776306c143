"""Every file that lava-deploy writes, as it should be; `--write-golden` writes them anew."""

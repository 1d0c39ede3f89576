"""How much memory a step takes, known before it runs: needs neither weights nor a GPU."""

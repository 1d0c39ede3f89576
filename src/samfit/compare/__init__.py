"""Many runs from one recipe, each in a process of its own, and one report of all of them."""

"""Whether Hanse's algorithms give the results that their papers publish."""

"""One module per stage of a refresh run."""

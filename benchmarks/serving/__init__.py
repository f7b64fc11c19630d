"""What serving costs: a bare echo server, `Recommend`, and `Recommend` steered in every way there is."""

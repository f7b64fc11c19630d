"""SAE training on the CPU's vector units, compiled by numba as it runs: no compiler on the host."""

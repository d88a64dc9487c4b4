"""How much of the category can be read from T: fresh probes, erasure and swapped conditions."""

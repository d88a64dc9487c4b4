"""Pictures of what the networks do, as PNG files."""

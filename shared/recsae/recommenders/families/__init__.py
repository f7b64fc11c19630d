"""Model families: reference networks, one module each, that train, export and are served through one path."""

"""Durable state: atomic files, content-addressed artifacts, Redis keys, histories."""

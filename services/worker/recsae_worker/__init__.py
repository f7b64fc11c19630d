"""The worker service: Celery tasks around `recsae.pipeline` and `recsae.drift`, beat's schedule and the exporter."""

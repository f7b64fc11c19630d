"""Refresh runs: their record, their stages and what moves them on. See ARCHITECTURE.md, life "refresh"."""

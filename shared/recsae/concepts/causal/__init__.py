"""What turning concepts does to recommendations: effects, safe ranges, nulls, handles (docs/method.md, section 7)."""

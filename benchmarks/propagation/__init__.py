"""How fast an acknowledged policy write is live at every replica of the recommender."""

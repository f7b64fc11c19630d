"""`python -m recsae_recommender`: serves until SIGTERM or SIGINT."""

import sys

from recsae.rpc.main import run_service
from recsae_recommender.app import RecommenderApp
from recsae_recommender.settings import RecommenderSettings

if __name__ == "__main__":
    sys.exit(run_service("recommender", RecommenderSettings, RecommenderApp))

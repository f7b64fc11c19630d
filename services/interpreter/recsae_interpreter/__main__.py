"""`python -m recsae_interpreter`: serves until SIGTERM or SIGINT."""

import sys

from recsae.rpc.main import run_service
from recsae_interpreter.app import InterpreterApp
from recsae_interpreter.settings import InterpreterSettings

if __name__ == "__main__":
    sys.exit(run_service("interpreter", InterpreterSettings, InterpreterApp))

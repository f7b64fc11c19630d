"""RecBole's own models on our data sets, split and measures: what our model families must not fall behind.

    PYTHONPATH=shared .venv-recbole/bin/python -m benchmarks.recbole            # writes benchmarks/recbole/ml-100k.json
    PYTHONPATH=shared .venv-recbole/bin/python -m benchmarks.recbole.export --model SASRec --epochs 1 --out FOLDER

RecBole is no dependency of this project and runs in an environment of its own (requirements/recbole.txt).
"""

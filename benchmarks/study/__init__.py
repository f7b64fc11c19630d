"""The study of `make paper`: concepts of SASRec on MovieLens-1M and Amazon Beauty, every figure beside its controls."""

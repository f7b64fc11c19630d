"""Conformance kit: tells whether a service keeps the contract of `ActivationExporter` and `Recommender`, and where not.

Any implementation, in any language: it is asked over gRPC and judged by its answers alone. `checks` holds the checks by
what they test, `suite` runs them in order, `probe` is what they ask through; `over_grpc` alone knows gRPC.
"""

"""One runnable file a claim: `python -m benchmarks.fused_rnn`."""

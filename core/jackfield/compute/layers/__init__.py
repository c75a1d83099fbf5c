"""The layers that models are built of, written for tensor parallelism."""

"""What everything else stands on: user errors and signals, keyed random draws, work spread over threads."""

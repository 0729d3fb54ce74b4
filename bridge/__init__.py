"""Event-source bridge daemon with replay."""

"""What measures: launches real parts, offers load, records, judges."""

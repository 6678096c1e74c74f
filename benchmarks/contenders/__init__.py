"""The measured programs: each is a separate process that does one task per request and reports its duration."""

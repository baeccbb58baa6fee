"""Load tests that end in a verdict. Locust sends, in an open loop. They know a URL, not the server behind it."""

"""Load tests that end in a verdict: Locust as the tool, open loop as the law. They know a URL, not what serves it."""

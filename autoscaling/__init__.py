"""What a fleet costs and how late it is: autoscalers held against traffic. This package knows nothing of serving."""

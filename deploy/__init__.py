"""What a platform needs to run the service: images, compose, Kubernetes, BentoCloud, dashboards and alerts."""

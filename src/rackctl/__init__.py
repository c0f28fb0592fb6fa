"""See, reach, replace and re-key the EC2 instances of an ECS cluster."""

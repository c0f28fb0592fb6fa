"""A small model of EC2, Auto Scaling and ECS as they behave over time; it knows nothing of requests or sockets."""

from rackctl.local.world.world import Host, World

__all__ = ["Host", "World"]

"""A small model of EC2, Auto Scaling and ECS and their behaviour over time, without requests and sockets."""

from rackctl.local.world.world import Host, World

__all__ = ["Host", "World"]

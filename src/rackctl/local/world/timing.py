"""Durations of AWS's operations, in seconds; the world's speed divides them."""

INSTANCE_RUNNING = 15.0
SSH_UP = 20.0
CONSOLE_OUTPUT = 60.0
ECS_REGISTERED = 45.0
AGENT_CONNECTED = 50.0
INSTANCE_TERMINATED = 30.0
INSTANCE_STOPPED = 20.0
INSTANCE_FORGOTTEN = 3600.0  # DescribeInstances returns a terminated instance for about an hour
REGISTRATION_INACTIVE = 90.0  # after the instance's termination
REGISTRATION_FORGOTTEN = 3600.0  # "you can still describe the container instance for one hour"

GROUP_RECONCILED = 10.0
LAUNCH_RETRIED = 30.0
ACTIVITIES_KEPT = 100

SERVICE_RECONCILED = 5.0
TASK_PENDING = 1.0
TASK_RUNNING = 5.0
TASK_STOPPING = 2.0
TASK_STOPPED = 5.0
TASK_FORGOTTEN = 3600.0
EVENT_REPEATED = 60.0  # a service repeats an event only after this time
EVENTS_KEPT = 100

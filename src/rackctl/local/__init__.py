"""The local rack: AWS's APIs and instances that accept SSH, on loopback, for trying rackctl out and for its tests."""

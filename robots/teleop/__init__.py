"""Teleoperation devices: each reads a person's hands and says nothing of robots; a preset says what that means.

A device of buttons and axes is `Controls`; `Mapped` makes a `Teleoperator` of it. Leader arms and phones come through
lerobot's drivers. Nothing here is imported before it is chosen, and no device talks to a robot: what it reads goes to
the controller, and from there through safety like a policy's answers.
"""

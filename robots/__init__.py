"""The robot host (driver and safety), servo laws, drivers and teleop devices."""

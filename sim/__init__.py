"""MuJoCo scenes, tasks, scripted experts and the simulated arm."""

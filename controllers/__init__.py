"""From slow chunks of actions to fast joint setpoints."""

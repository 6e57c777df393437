"""The operator's hands: commands, buttons and the doctor, on real locks, dead ports and real processes."""

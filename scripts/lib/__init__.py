"""What scripts need of the machine: `interpreter` for those in Python, `machine.sh` for those in bash."""

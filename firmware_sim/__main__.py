"""`python -m firmware_sim` is the command `rtcore`; see `cli.py`."""

from firmware_sim.cli import main

if __name__ == "__main__":
    main(prog_name="rtcore")

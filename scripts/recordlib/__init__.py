"""The recording of a cut. `main`: the command. `scene`: the real run. `film`: the picture of it."""

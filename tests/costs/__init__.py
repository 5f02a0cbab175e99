"""What moving bytes costs, counted in what no clock and no neighbour changes; `bounds` holds what is allowed."""

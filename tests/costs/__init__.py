"""What moving bytes costs, in counts that do not depend on time or load; `bounds` has the limits."""

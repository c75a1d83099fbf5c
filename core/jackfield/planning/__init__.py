"""From settings and a checkpoint to one frozen plan; everything that can be is refused here."""

from jackfield.planning.plan import ServingPlan, make_plan

__all__ = ["ServingPlan", "make_plan"]

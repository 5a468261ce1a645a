"""How many labels a target score needs: learning curves, costs, the annotation plan."""

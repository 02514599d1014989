"""Pictures by matplotlib, which loads when something is drawn. `report` and `Selection.plot` use them."""

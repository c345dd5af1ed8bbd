"""What a training will take: room on disk, memory of the card, memory of the machine. `docs/cost.md` has the model.

The estimates are arithmetic; `machine` asks what there is, and `problems` holds the two against each other.
"""

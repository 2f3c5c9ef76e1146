"""Attacks on real servents, and what honest people notice of them. Begun by contrib/hostile.

run       the command line, and the table
attacks   the attacks, each a process of its own
watching  an honest person, and what each thing takes and costs
mutants   each defence is taken out in turn, and its tests must turn red
"""

"""Every number that the exercises' tests use.

Hidden tests are the same tests with another file in this one's place (grade.py --parameters), so
code that was written to these numbers, and not to the paper, fails there.  The comments say what
the tests rely on; keep to them.
"""
SEED = 0  # of made-up returns, values, chunks
# 1, 2
N_BINS = (2, 11, 201)  # at least 2
LENGTHS = (1, 5, 12)  # T of episodes, at least 1, at most LIMIT
LIMIT = 20  # the task's time limit in steps
C_FAIL = (None, 0, 3, 30)  # in steps; None is LIMIT
LOOKAHEADS = (1, 3, 11, 12, 40)  # N
# 3
FRACTIONS = (0.0, 0.1, 0.3, 0.77, 1.0)  # of positive labels, each a whole number of 1,000
POSITIVE = 0.4  # of the newest rollouts, in (0.1, 0.9)
POSITIVE_PRETRAINING = 0.3  # in (0.1, 0.9)
LOOKAHEAD = 7  # N of fine-tuning, at least 2, at most 20
ITERATION = 2  # the newest, at least 2
# 4, 5
SHAPE = (5, 3, 4)  # N, H, action_dim; the last even, each at least 2
ETAS = (0.0, 0.25, 0.6, 0.95)  # below 1
STEPS = (1, 3, 10)  # of Euler
BETAS = (0.5, 1.5, 2.5)  # neither 0 nor 1
# 6
TEMPERATURES = (0.1, 1.0)
MAX_WEIGHT = 20.0  # above 1
EPSILONS = (0.05, 0.3)  # trust regions, in (0, 1)
ALPHA = 0.3  # weight of the flow's brace of Eq. (11), not 1
# 7
ITERATIONS = 3  # K, at least 2
TOKENS = 0.5  # weight of the action tokens, not 1
EPISODES = (6, 4)  # autonomous, corrected

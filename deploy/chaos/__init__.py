"""The checker: a load, a nemesis that breaks things at random moments, and a proof that nothing was lost or doubled.

After Jepsen (https://jepsen.io): everything that was done and answered goes into a history, and only when all is quiet
again is the history compared with what is there. `run` makes a history, `check` judges one.
"""

"""The search on Ray Tune: plan, searcher, trials, leaderboard, conclusion."""
